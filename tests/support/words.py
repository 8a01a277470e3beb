"""What an honest guest of 512 MiB says."""

from agent import wire
from host_controller.units import MIB

REPORT = wire.Report(
    boot_id_prefix="0123abcd",
    sequence=7,
    uptime_seconds=100.0,
    total_bytes=404 * MIB,
    available_bytes=369 * MIB,
    free_bytes=300 * MIB,
    online_bytes=512 * MIB,
    floor_bytes=8 * MIB,
)
