"""HTTP as a client: requests whose cost is bounded, whatever the server at the other end does.

`sender`      one batch, one POST request; the base of all destinations over HTTP
`responses`     what a response means for a batch
`failures`    what a request that got no response means
`bounds`      how much of a response is read, and how long the loop is held by it
`guard`       addresses that are never connected to
`tls`         certificates, read again when they are renewed
`signatures`  Standard Webhooks
"""
