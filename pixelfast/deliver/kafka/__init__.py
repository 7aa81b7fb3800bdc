"""Messages to Kafka through librdkafka, the C library of the package confluent-kafka.

`properties`  from settings to properties of librdkafka
`messages`    from a batch to messages
`client`      a producer on the event loop, and the reports about its messages

Connections, errors and statistics are in `pixelfast.kafka`.
"""
