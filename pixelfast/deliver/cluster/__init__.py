"""Delivery from the topic of a cluster instead of the spool.

A destination is a consumer group. Each partition of the topic that a process owns has a runner,
whose log is the partition and whose state is in the metadata of the committed offset.

`checkpoint`  what is stored with a committed offset
`history`     recognizes copies of frames
`log`         a partition as the log of a runner
`requests`    blocking requests to the brokers, outside of the event loop
`starts`      where new destinations start
`store`       the state of a runner, in committed offsets
`properties`  the properties of librdkafka for the settings of `[cluster]`
`group`       the consumer of a destination
`fetcher`     reads messages again
`dead`        dead letters in a topic
`home`        one partition as the home of a runner
`member`      one destination of a process: its consumer, and a runner for each partition
`engine`      all destinations of a process
"""
