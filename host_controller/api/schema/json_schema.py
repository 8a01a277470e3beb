"""All answers of the control API, and their JSON Schema."""

from typing import Any

import msgspec

from host_controller.api.schema.adoption import AdoptionsView, RulesView
from host_controller.api.schema.answers import ApiView, DoneView, Problem, View
from host_controller.api.schema.checks import CheckView, DoctorView
from host_controller.api.schema.explain import ExplainView
from host_controller.api.schema.fleet import FiguresView, FleetView
from host_controller.api.schema.history import ChartView, EntryView, HistoryView, MomentView
from host_controller.api.schema.host import AdmissionView, StatusView
from host_controller.api.schema.vm import VmView

ANSWERS: tuple[type[View], ...] = (
    Problem,
    ApiView,
    StatusView,
    VmView,
    ExplainView,
    HistoryView,
    ChartView,
    MomentView,
    EntryView,
    DoneView,
    DoctorView,
    CheckView,
    RulesView,
    AdoptionsView,
    AdmissionView,
    FiguresView,
    FleetView,
)


def json_schema() -> dict[str, Any]:
    """JSON Schema of all answers."""
    schemas, components = msgspec.json.schema_components(ANSWERS, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "anyOf": list(schemas),
        "$defs": components,
    }
