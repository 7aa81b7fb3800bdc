"""A Kafka topic as the log that several machines share.

Collectors write frames to the topic, and delivery processes read them in consumer groups, one for
each destination.

`message`     the headers of a message, which holds one frame
`frames`      makes the values of messages from the frames of a segment
`cursor`      how far the log of a slot is replicated
`topic`       checks that a topic keeps what it has acknowledged
`producer`    a producer that never reorders frames
`replicator`  replicates the log of a slot
`acks`        when the responses of a commit are sent
`backlog`     the events that are stored on this machine but not replicated
`orphans`     replicates slots without a collector
`replication` puts these together for a collector
`nodes`       the machines of the cluster, by their names
"""
