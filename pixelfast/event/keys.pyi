# Used only by compiled code: `EventWriter` looks up the shape of each query.

__all__: list[str] = []
