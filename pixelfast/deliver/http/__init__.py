"""An HTTP client whose requests have a limited cost, whatever the server does.

`sender`      one batch, one POST request; the base of all destinations over HTTP
`responses`   the meaning of a response for a batch
`failures`    the meaning of a request without a response
`bounds`      how much of a response is read, and how much time that may take
`guard`       addresses to which it never connects
`signatures`  the headers of Standard Webhooks
"""
