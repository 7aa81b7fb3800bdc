"""Operation: the processes, their logs and figures, and the admin address.

`supervisor`  starts the processes, reloads their settings and stops them in order
`child`       one process, across its restarts
`process`     the main function of a collector process and of a delivery process
`alone`       a process without a supervisor
`control`     the connection between the supervisor and each process
`handover`    what a program hands over to the version that replaces it
`listeners`   listening sockets: passed by systemd, handed over, or new
`sockets`     opens and distributes listening sockets
`reload`      what a reload can change, and its outcome
`rates`       the shared memory of rate limits
`signals`     signals that must not end a process
`systemd`     notifications to systemd, its watchdog, and the sockets that it passes
`admin`       health checks and metrics over HTTP
`metrics`     all metrics; `collector_metrics`, `delivery_metrics` and `cluster_metrics` are parts
`families`    metric families
`totals`      totals that continue when the process that counted them ends
`machine`     what the supervisor measures: the disk (`disk_space`) and its event loop (`loop_lag`)
`logging`     the log on standard error
`sampling`    logs repeated errors once a minute
`limits`      compares the limits of the system with the settings
"""
