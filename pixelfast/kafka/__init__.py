"""Connections to Kafka through librdkafka, the C library of the package confluent-kafka.

Destinations and `[cluster]` share them. Nothing here imports confluent-kafka at import time.

`connection`  the properties that all clients of librdkafka have
`logger`      log lines of librdkafka
`errors`      the meaning of librdkafka's and the brokers' errors
`statistics`  figures of the brokers
`admin`       requests about topics and consumer groups
"""
