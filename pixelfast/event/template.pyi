# For compiled code only: `EventWriter` decides when a template writes an event.

__all__: list[str] = []
