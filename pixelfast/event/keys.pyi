# For compiled code only: `EventWriter` looks up the shape of each query.

__all__: list[str] = []
