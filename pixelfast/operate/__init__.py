"""Operating: the processes, what they say of themselves, and where people look at them.

`sockets`     listening sockets, made once and handed to the collectors
`control`     the line between the supervisor and each of its processes
`process`     what a collector process and the delivery process run
`supervisor`  starts, watches, restarts and stops them
`admin`       health and metrics over HTTP
`metrics`     the processes' figures as Prometheus metrics
`logging`     what is said on standard error
`demo`        the source of a first try without settings
"""
