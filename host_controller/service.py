"""The controller as a process: configuration, lock, signals, systemd, and an end within two seconds."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import msgspec
import structlog

from host_controller import preflight
from host_controller.api.server import Api
from host_controller.config import Config, ConfigError, Problem, load
from host_controller.control.controller import Controller
from host_controller.control.state_dir import StateDir
from host_controller.core.engine import Engine
from host_controller.core.interface import Hypervisor
from host_controller.core.model import Settings
from host_controller.credentials import Credentials
from host_controller.errors import DynmemError
from host_controller.host.exclusive import Claim
from host_controller.records.history import History
from host_controller.records.journal import Journal
from host_controller.records.recording import Recorder
from host_controller.records.tier_file import Keep
from host_controller.rules.taking import Rulebook
from host_controller.systemd import Systemd

STOP_SECONDS: Final = 1.5
"""For libvirt to let go; a call that hangs longer is left to the process's end."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; it goes before the file."""

    config: Path | None = None
    connect: str | None = None
    capacity_bytes: int | None = None
    socket: Path | None = None
    state_dir: Path | None = None
    dry_run: bool = False
    record: Path | None = None


def configuration(options: Options) -> Config:
    """The file with the command line's changes.

    Raises:
        ConfigError: with all mistakes of the file.
    """
    replace = msgspec.structs.replace
    config = load(options.config).at(options.connect)
    if options.capacity_bytes is not None:
        config = replace(config, host=replace(config.host, capacity=options.capacity_bytes, reserve=None))
    if options.state_dir is not None:
        config = replace(config, paths=replace(config.paths, state_dir=str(options.state_dir.absolute())))
    if options.socket is not None:
        config = replace(config, paths=replace(config.paths, socket=str(options.socket.absolute())))
    return config


def settings_of(config: Config, here: bool = True) -> Settings:
    """The engine's settings on this host, as it is now; `here` is False where VMs are made up.

    Raises:
        ConfigError: what is configured cannot be had here.
    """
    if not here:
        return config.settings()
    facts = preflight.host_facts(config)
    problems = preflight.memory_problems(config, facts)
    if problems:
        raise ConfigError("configuration", problems)
    return config.settings(facts)


def check_unchangeable(old: Config, new: Config) -> None:
    """Raises ConfigError when something differs that only a restart can change."""
    problems = []
    for section in ("libvirt", "paths", "history", "http", "fleet"):
        before, after = getattr(old, section), getattr(new, section)
        for field in msgspec.structs.fields(before):
            was, wanted = getattr(before, field.name), getattr(after, field.name)
            if was != wanted:
                allowed = f"{was!r} until dynmem is restarted"
                problems.append(Problem(f"{section}.{field.name}", repr(wanted), allowed))
    if problems:
        raise ConfigError("reload", problems)


def rules_of(config: Config) -> Rulebook:
    """The rules that a configuration has for domains without limits of their own."""
    return Rulebook(config.rule, config.default_limits)


@runtime_checkable
class FollowsRules(Protocol):
    """A hypervisor whose domains may be somebody else's; those of the simulator are all ours."""

    def follow_rules(self, rules: Rulebook) -> None:
        """From now on these count."""


class Service:
    """One run of the controller."""

    def __init__(
        self,
        options: Options,
        hypervisor: Callable[[Config], Hypervisor],
        engine: Callable[[Settings], Engine] = Engine,
        *,
        here: bool = True,
    ) -> None:
        """`here`: the VMs take this machine's memory; where they are made up nothing is checked."""
        self._here = here
        self._options = options
        self._make_engine = engine
        self._make_hypervisor = hypervisor
        self._systemd = Systemd()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Work until a signal.

        Raises:
            DynmemError: it could not begin.
        """
        self._config = configuration(self._options)
        if self._here:
            preflight.check(self._config)
        settings = settings_of(self._config, self._here)
        state_dir = StateDir(self._config.state_dir)
        before = state_dir.open(preflight.source(self._options.config))
        if state_dir.problem is not None:
            log.error("nothing is known of the controller before", problem=state_dir.problem)
        claim = Claim(self._config.libvirt.uri)
        try:
            claim.take(f"with the state directory {self._config.state_dir}")
            self._hypervisor = self._make_hypervisor(self._config)
            controller = Controller(
                self._hypervisor,
                settings,
                Journal(),
                state_dir=state_dir,
                before=before,
                recorder=self._recorder(settings),
                dry_run=self._options.dry_run,
                connection=f"{self._config.libvirt.uri} (connecting)",
                after_tick=self._systemd.alive,
                engine=self._make_engine,
            )
            await self._work(controller)
        finally:
            claim.release()
            state_dir.close()

    async def _work(self, controller: Controller) -> None:
        api = Api(controller, lambda: self._reload(controller, api), history=self._keep_history(controller))
        await api.start(self._config.socket_path)
        await api.start_view(self._config.view_path)
        api.admission.limit_seconds, api.admission.rules = self._config.admission.wait, self._config.rule
        if self._config.listen is not None:
            address, _ = self._config.listen
            port = await api.start_tcp(*self._config.listen)
            log.info("page and metrics are served", address=address, port=port)
        if self._config.fleet_listen is not None:
            credentials = Credentials.within(Path(self._config.fleet.credentials))
            await api.start_fleet(*self._config.fleet_listen, credentials)
        self._handle_signals(api)
        running = asyncio.create_task(controller.run(), name="controller")
        stop = asyncio.create_task(self._stop.wait(), name="signal")
        self._systemd.ready("at work")
        log.info(
            "at work",
            socket=str(self._config.socket_path),
            uri=self._config.libvirt.uri,
            dry_run=controller.dry_run,
        )
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        self._systemd.stopping()
        await api.stop()
        controller.stop()
        await asyncio.wait({running}, timeout=STOP_SECONDS)
        if not running.done():
            # Threads that wait for libvirt would keep the process; all that must be kept is on disk.
            log.warning("libvirt does not let go; leaving without it")
            os._exit(0)
        running.result()

    def _keep_history(self, controller: Controller) -> Path | None:
        section = self._config.history
        if not section.enabled:
            return None
        journal = controller.journal
        history = History(
            Path(self._config.paths.history),
            keep_seconds=section.keep,
            tiers=Keep(minutes=section.keep_minutes, hours=section.keep_hours),
            largest_bytes=section.max_size,
            wall=journal.wall_time,
            config=lambda uuid: None if (vm := controller.engine.vms.get(uuid)) is None else vm.config,
            failed=lambda problem: journal.count_error("history"),
        )
        journal.add_sink(history)
        return history.path

    def _recorder(self, settings: Settings) -> Recorder | None:
        path = self._options.record
        if path is None:
            return None
        try:
            return Recorder(path, settings, time.monotonic())
        except OSError as error:
            raise DynmemError(f"{path}: {error.strerror}", hint="name another --record") from None

    def _handle_signals(self, api: Api) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up, api)

    def _hang_up(self, api: Api) -> None:
        self._systemd.reloading()
        try:
            api.reload("a signal (SIGHUP)")
        except ConfigError:
            self._systemd.ready("at work; the last reload was refused, see dynmem status")
        else:
            self._systemd.ready("at work")

    def _reload(self, controller: Controller, api: Api) -> None:
        config = configuration(self._options)
        check_unchangeable(self._config, config)
        controller.apply(settings_of(config, self._here))
        if isinstance(self._hypervisor, FollowsRules):
            self._hypervisor.follow_rules(rules_of(config))
        api.admission.limit_seconds, api.admission.rules = config.admission.wait, config.rule
        self._config = config
