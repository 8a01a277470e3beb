"""What the control API says: the shape of every answer. `GET /v1/schema` gives it as JSON Schema.

Sizes are bytes, durations seconds; `…_at` is seconds since 1970. A figure that is not known is null. Within
version 1 fields are added, never removed or given another meaning: readers ignore what they do not know.
"""
