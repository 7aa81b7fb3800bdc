# Used only by compiled code: `EventWriter` decides when a template writes an event.

__all__: list[str] = []
