"""Messages to Kafka through librdkafka, the C library of the package confluent-kafka.

`properties`  the properties of librdkafka for the settings of a destination
`messages`    the messages of a batch
`check`       the properties as librdkafka checks them, also those of `[cluster]`
`client`      a producer on the event loop, and the reports about its messages

Connections, errors and statistics are in `pixelfast.kafka`.
"""
