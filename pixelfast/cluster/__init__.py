"""A Kafka topic as the log that several machines share.

Collectors write frames to the topic, and deliverers read them in consumer groups, one for each
destination.

`message`     the headers of a message, which holds one frame
`frames`      from the frames of a segment to the values of messages
`cursor`      how far the log of a slot is replicated
`topic`       checks that a topic keeps what it has acknowledged
`producer`    a producer that never reorders frames
`replicator`  replicates the log of a slot
`acks`        when the responses of a commit go out
`backlog`     what is stored on this machine and not replicated
`orphans`     replicates slots without a collector
`replication` puts these together for a collector
"""
