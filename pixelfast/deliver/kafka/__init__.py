"""Messages to Kafka through librdkafka, the C library of the package confluent-kafka.

`properties`  from settings to properties of librdkafka
`messages`    from a batch to messages
`client`      a producer on the event loop, and the reports about its messages
`errors`      the meaning of librdkafka's and the brokers' errors
`statistics`  figures of the brokers
"""
