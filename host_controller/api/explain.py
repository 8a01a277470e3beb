"""Why a VM has what it has, in words: the decision, what demand is made of, what it costs, what holds it."""

from host_controller.api.holders import holders_view
from host_controller.api.schema.explain import ExplainView, Part
from host_controller.api.schema.history import MomentView, MomentVmView
from host_controller.api.views import vm_view
from host_controller.control.controller import Controller
from host_controller.core.books import charge as books
from host_controller.core.books.pools import ram_in_pool
from host_controller.core.model import Growth
from host_controller.core.policy import plan
from host_controller.core.policy.balance import Claims
from host_controller.core.vm.guest import READ
from host_controller.core.vm.record import Phase, Vm
from host_controller.neutral import shell_word
from host_controller.units import MIB, format_size


def explain(controller: Controller, vm: Vm) -> ExplainView:
    """All about the current decision for one VM."""
    return ExplainView(
        vm=vm_view(controller, vm),
        demand=_demand(vm),
        charge=_charge(controller, vm),
        balance=_balance(controller, vm),
        why=_why(controller, vm),
        holders=holders_view(controller, vm),
    )


def _demand(vm: Vm) -> list[Part]:
    estimate, facts = vm.guest.estimate, vm.guest.facts
    if estimate is None or facts is None:
        return []
    source = "the agent's report" if facts.from_agent else "balloon statistics: no agent speaks"
    if facts.boot_id == READ:
        source = "its kernel through the QEMU guest agent, and balloon statistics"
    buffer = estimate.demand_bytes * vm.config.limits.buffer_percent // 100
    parts = [
        ("usable", estimate.usable_bytes, f"what the guest can work with, from {source}"),
        ("available", facts.available_bytes, "of that, what its kernel could give to a new program"),
        ("in use", estimate.guest_bytes, "usable less available, the kernel's own memory included"),
        ("swap in use", estimate.hot_swap_bytes, "on disk, and read back lately"),
        ("cache", estimate.cache_bytes, "files that the guest reads again and again"),
        ("demand", estimate.demand_bytes, "in use, swap and cache together"),
        ("stalls", estimate.stall_bytes, "asked for beside it, since its programs wait for memory (PSI)"),
        ("margin", estimate.margin_bytes, "left available at the least, since nothing is measured exactly"),
        ("buffer", buffer, f"{vm.config.limits.buffer_percent} % of demand, as its user wants"),
        ("ahead", estimate.ahead_bytes, "how much it will grow until memory could get there"),
    ]
    always = {"usable", "available", "in use", "demand", "margin", "buffer"}
    return [Part(name=n, size_bytes=s, text=t) for n, s, t in parts if s or n in always]


def _charge(controller: Controller, vm: Vm) -> list[Part]:
    settings = controller.engine.state.settings
    overhead = Part(
        name="overhead",
        size_bytes=books.overhead(vm, settings),
        text=_first_line(books.overhead.__doc__),
        deciding=True,
    )
    if vm.config.huge_page_bytes is not None:
        text = "its RAM, which is charged to the pool of its huge pages and not to ordinary memory"
        held = Part(name="resident", size_bytes=books.resident(vm), text=_first_line(books.resident.__doc__))
        return [Part(name="huge pages", size_bytes=ram_in_pool(vm), text=text), held, overhead]
    deciding = books.explain_charge(vm, settings)[0][0]
    parts = [
        Part(
            name=rule.__name__.replace("_", " "),
            size_bytes=rule(vm),
            text=_first_line(rule.__doc__),
            deciding=rule.__name__ == deciding,
        )
        for rule in books.RULES
        if rule(vm)
    ]
    parts += [
        Part(
            name=extra.__name__.replace("_", " "),
            size_bytes=extra(vm),
            text=_first_line(extra.__doc__),
            deciding=True,
        )
        for extra in books.EXTRAS
        if extra(vm)
    ]
    return [*parts, overhead]


def _balance(controller: Controller, vm: Vm) -> list[Part]:
    uuid = vm.config.uuid
    claims = controller.engine.claims.get(uuid)
    goal = controller.engine.goals.get(uuid)
    if claims is None or goal is None:
        return []
    return [
        Part(name="lower", size_bytes=claims.irreducible, text=_lower(claims, vm)),
        Part(name="need", size_bytes=claims.need, text="what it works with now"),
        *_eased(claims),
        Part(name="desired", size_bytes=claims.desired, text="need and its buffer, within its limits"),
        Part(name="keep", size_bytes=claims.keep, text="what it may keep while nobody else needs it"),
        Part(name="goal", size_bytes=goal, text="what it gets of the host's budget", deciding=True),
    ]


def balance_now(controller: Controller) -> MomentView:
    """What every VM that takes part asks for, and gets."""
    engine, at = controller.engine, round(controller.journal.wall_time(controller.now()), 3)
    vms = [
        MomentVmView(
            uuid=uuid,
            name=engine.vms[uuid].name,
            seen_at=at,
            weight=claims.weight,
            assigned_bytes=engine.vms[uuid].assigned_bytes,
            demand_bytes=estimate.demand_bytes if (estimate := engine.vms[uuid].guest.estimate) else None,
            lower_bytes=claims.irreducible,
            need_bytes=claims.need,
            eased_bytes=claims.eased,
            desired_bytes=claims.desired,
            goal_bytes=engine.goals.get(uuid),
        )
        for uuid, claims in engine.claims.items()
    ]
    return MomentView(at=at, vms=vms)


def _lower(claims: Claims, vm: Vm) -> str:
    if claims.irreducible <= vm.config.limits.minimum_bytes:
        return "its minimum"
    return "below it its kernel would kill"


def _eased(claims: Claims) -> list[Part]:
    if claims.eased == claims.need:
        return []
    text = "need, and what its noise or its stalls ask for before anybody's buffer"
    return [Part(name="eased", size_bytes=claims.eased, text=text)]


def _why(controller: Controller, vm: Vm) -> list[str]:
    engine, now = controller.engine, controller.now()
    decision = engine.decisions.get(vm.config.uuid)
    found = []
    if controller.dry_run:
        found.append("This is a dry run: nothing is sent.")
    if not engine.state.connected:
        found.append(f"The hypervisor cannot be reached: {controller.connection}.")
    if engine.state.in_no_book():
        found.append(f"Nobody is given more: {engine.state.why_nobody()}.")
    standstill = engine.state.standstills.get(vm.config.uuid)
    immovable = (
        plan.immovable(vm, engine.state.settings, now) if standstill is None else standstill.describe(now)
    )
    if immovable is not None:
        found.append(f"It is left alone: {immovable}.")
    if decision is not None and decision.blocked_by:
        found.append(f"Held back: {decision.blocked_by}.")
    if vm.config.pinned is not None:
        name, why = vm.config.name, vm.config.pinned
        found.append(
            f"It is charged all of its RAM: {why}; `dynmem doctor {shell_word(name)}` says what to do."
        )
    elif vm.phase is not Phase.LIVE:
        found.append(
            f"It is charged {format_size(engine.charges.get(vm.config.uuid, 0))}: {_PHASES[vm.phase]}."
        )
    if now < vm.progress.stuck_until:
        found.append(
            "Its balloon did not follow its target; "
            f"it is asked again in {vm.progress.stuck_until - now:.0f} s."
        )
    if rest := vm.plug_rest.after_failure(now):
        found.append(f"Hot add failed; it is tried again in {rest:.0f} s.")
    if rest := vm.unplug_rest.after_failure(now):
        found.append(f"Unplug failed; it is tried again in {rest:.0f} s.")
    return found + _why_not_more(controller, vm) + _why_not_less(controller, vm)


_PHASES = {
    Phase.STARTING: "until its balloon driver is up it may touch all of its RAM",
    Phase.TAKEOVER: "a controller before this one may have told it anything, so all of its RAM counts",
    Phase.HUNG: "the guest has not answered for long, so all of its RAM counts",
    Phase.CONTRADICTED: "its claims and what the host sees do not agree, so all of its RAM counts",
}


def _why_not_more(controller: Controller, vm: Vm) -> list[str]:
    engine, estimate = controller.engine, vm.guest.estimate
    goal = engine.goals.get(vm.config.uuid)
    if estimate is None or goal is None:
        return []
    found = []
    limits = vm.config.limits
    unlimited = (
        estimate.demand_bytes * (100 + limits.buffer_percent) // 100
        + estimate.margin_bytes
        + estimate.ahead_bytes
    )
    if unlimited > limits.maximum_bytes:
        found.append(
            f"It would like {format_size(unlimited)}, but its maximum is {format_size(limits.maximum_bytes)}."
        )
    ceiling = vm.growth_ceiling_bytes
    if ceiling < limits.maximum_bytes and estimate.desired_bytes > ceiling:
        found.append(
            f"It was booted with {format_size(ceiling)} of RAM; more of its maximum needs a restart."
        )
    if goal + MIB < min(estimate.desired_bytes, ceiling):
        wanted = sum(one.desired for one in engine.claims.values())
        found.append(
            f"The host has {format_size(engine.budget_bytes)} for all VMs that can be moved, and they want "
            f"{format_size(wanted)}: with a weight of {limits.weight} it gets {format_size(goal)}."
        )
        if kept := _kept_whatever_the_weight(controller, vm.config.uuid):
            found.append(
                f"Others keep {format_size(kept)} whatever its weight: it is their minimum, or what they use "
                "and no swap on a disk can take; with less their kernels would kill."
            )
    return found


def _kept_whatever_the_weight(controller: Controller, uuid: str) -> int:
    """What others have since they cannot go lower, though it is more for their weight, bytes; 0 for a VM that
    has what it needs.
    """
    claims, goals = controller.engine.claims, controller.engine.goals
    mine, goal = claims.get(uuid), goals[uuid]
    if mine is None or goal >= mine.need:
        return 0
    return sum(
        one.irreducible
        for other, one in claims.items()
        if goals.get(other, 0) <= one.irreducible and one.irreducible * mine.weight > goal * one.weight
    )


def _why_not_less(controller: Controller, vm: Vm) -> list[str]:
    engine, estimate, now = controller.engine, vm.guest.estimate, controller.now()
    # Less than the dead band is left alone for good, and is not worth a word.
    if estimate is None or vm.assigned_bytes <= estimate.desired_bytes + plan.shrink_dead_band(
        vm.assigned_bytes
    ):
        return []
    settings = engine.state.settings
    excess = format_size(vm.assigned_bytes - estimate.desired_bytes)
    settled = vm.booted_at + max(settings.settle_seconds, settings.shrink_after_seconds)
    found = []
    if now < settled and not engine.waiting_bytes:
        found.append(
            f"It has {excess} more than it wants; after a start that is left alone, "
            f"for {settled - now:.0f} s more, unless somebody needs it."
        )
    elif engine.goals.get(vm.config.uuid, 0) > estimate.desired_bytes:
        found.append(
            f"It has {excess} more than it wants; that is taken when it has lasted for "
            f"{settings.shrink_after_seconds:.0f} s, or as soon as somebody needs it."
        )
    if vm.config.growth is Growth.HOTADD and vm.dimms.plugged:
        found.append(
            f"A DIMM is taken out after {settings.unplug_after_seconds:.0f} s without a use for it; "
            "until then the balloon holds what is spare."
        )
    return found


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0].rstrip(".")
