"""Operating: the processes, their logs and figures, and the admin address that shows them.

`sockets`     listening sockets, made once and handed to the collectors
`control`     the line between the supervisor and each of its processes
`rates`       the shared memory behind rate limits
`process`     what a collector process and the delivery process run
`supervisor`  starts the processes, reloads their settings, stops them in order
`child`       one of them, across its restarts
`handover`    what one program hands on to the version that takes its place
`listeners`   sockets that were passed, handed over, or are new
`reload`      what a reload may change, and what became of it
`systemd`     notifications to systemd, its watchdog, and the sockets it passes
`admin`       health and metrics over HTTP
`metrics`     all metrics; `collector_metrics`, `delivery_metrics`: those of the processes' figures
`families`    families of metrics, made of samples
`totals`      totals that go on when the process that counted them ends
`machine`     what the supervisor measures: the room on the disk (`room`), its loop (`loop_lag`)
`logging`     the log on standard error
`sampling`    errors that come again, logged once in a while
`limits`      what the system allows, compared with what the settings need
"""
