"""The only place that builds, starts, reloads and drains the parts.

Start: store, writer, workers, scheduler, listeners, READY. Stop: listeners, scheduler, workers (finish
or hand back the lease), writer, store. Signal handlers only set a flag for the loop.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from tornado import web

from daemon import logs, neighbours, overview, systemd
from daemon.actions.runner import ActionRunner
from daemon.clock import Clock
from daemon.config import Address, Config, SyncSettings, diff_needing_restart, exposures
from daemon.core import Core, client_settings
from daemon.errors import ConfigError, HeadwaterError, Problem, StoreError, StoreUnavailable
from daemon.logs import get_logger
from daemon.metrics import Metrics
from daemon.model import (
    Claim,
    Outcome,
    PollTarget,
    RepositoryRecord,
    RunResult,
    Topic,
    Trigger,
)
from daemon.redaction import Redactor
from daemon.samples import Samples
from daemon.store.database import Listener as StoreListener
from daemon.store.hooklog import HookLog
from daemon.store.nodes import HEARTBEAT_SECONDS
from daemon.store.search import INDEXED_AT_ONCE
from daemon.sync.routine import Interrupted
from daemon.sync.workers import Workers
from daemon.triggers.addresses import HookAddresses
from daemon.triggers.discovery import discover_safely
from daemon.triggers.poller import Poller, poll_safely
from daemon.triggers.recovery import ROUND_SECONDS, Recovery, recover_safely
from daemon.triggers.schedule import promised_seconds, tick_seconds
from daemon.triggers.scheduler import ClockWatch, Scheduler
from daemon.triggers.writer import DeliveryWriter
from daemon.version import __version__
from daemon.web.admin import AdminDeps, make_admin_app
from daemon.web.listeners import Listener, listen
from daemon.web.public import PublicDeps, make_public_app
from daemon.web.senders import Senders
from daemon.web.sessions import Sessions
from daemon.web.stream import Hub

log = get_logger()

READ_THREADS = 8
SWEEP_SECONDS = 600.0
CHECKPOINT_SECONDS = 2.0
ENTITY_SECONDS = 10.0
ADDRESSES_SECONDS = 30.0
DISCOVERY_SECONDS = 1.0
WATCH_SECONDS = 1.0
BUDGET_SECONDS = 1.0
TRACKING_SECONDS = 60.0  # between two looks at what other nodes have learnt, who tell of it
SAMPLE_SECONDS = 60.0
LAG_INTERVAL_SECONDS = 1.0
STATUS_SECONDS = 15.0
POLLER_STUCK_SECONDS = 900.0
CLOCKS_APART = timedelta(days=1)
# A full collection stops every thread for as long as the heap is large: 70 ms with one listing of 100,000 entries.
# So the young generations alone are collected as they fill, and the rest now and then while no sync runs.
COLLECTOR_THRESHOLDS = (50_000, 5, 1_000_000)
SWITCH_SECONDS = 0.001  # how long a worker computes before the loop, behind all of them, may have its turn


class Service:
    """The daemon: a core, its workers, its scheduler and its two listeners.

    ``load`` reads the configuration again (for SIGHUP) and raises ConfigError.
    """

    def __init__(
        self, config: Config, *, load: Callable[[], Config], environ: Mapping[str, str], clock: Clock | None = None
    ) -> None:
        self.config = config
        self._load = load
        self._environ = environ
        self._clock = clock or Clock()
        self._metrics = Metrics()
        self._scraping = threading.Lock()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._listeners: list[Listener] = []
        self._started_at = self._clock.now()
        self._last_tick = self._clock.monotonic()
        self._refused = False  # the last reload
        self._clock_watch = ClockWatch()
        self._reads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")
        self._sessions = Sessions(self._clock.monotonic)
        self._core: Core
        self._samples: Samples
        self._writer: DeliveryWriter
        self._workers: Workers
        self._poller: Poller
        self._hook_log: HookLog
        self._recovery: Recovery
        self._actions: ActionRunner
        self._addresses: HookAddresses
        self._hub: Hub
        self._scheduler: Scheduler
        self._listener: StoreListener | None = None

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until TERM or INT. Raises HeadwaterError or OSError when it cannot start, or its disk failed."""
        self._watch_signals()
        try:
            self._start_inside()
            await self._start_listeners()
            self._say_ready()
            await self._serve()
            self._assert_store_sound()
        finally:
            systemd.notify("STOPPING=1\nSTATUS=finishing what runs", environ=self._environ)
            await self._shut_down()
            self._ignore_signals()

    def secret_values(self) -> list[str]:
        """Everything that may not be shown: of the configuration, and what GitHub gave meanwhile."""
        issued = self._core.client.secrets() if hasattr(self, "_core") else []
        return [*self.config.secret_values(), *issued]

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)

    def _ignore_signals(self) -> None:
        """One that comes after the end is not to be the end that it is for other programs."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _start_inside(self) -> None:
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        sys.setswitchinterval(SWITCH_SECONDS)
        self._warn()
        self._core = core = Core(self.config, clock=self._clock, metrics=self._metrics)
        self._clock = core.clock
        core.node.beat()
        self._samples = Samples(core, self._metrics)
        self._hub = Hub(core.feed, executor=self._reads, loop=asyncio.get_running_loop())
        recovered = core.recover()
        core.repositories.everything_due()
        if recovered:
            log.info("queue.recovered", jobs=recovered)
        self._workers = Workers(
            core.jobs,
            core.routine,
            clock=self._clock,
            owner=self._core.node.id,
            settings=self._worker_settings,
            on_run=self._after_run,
            on_start=self._hub.sync_started,
            on_put_off=lambda claim: self._hub.sync_finished(claim, None),
        )
        self._writer = DeliveryWriter(
            core.history, clock=self._clock, on_stored=self._workers.wake, on_delivery=self._hub.delivered
        )
        self._poller = Poller(
            core.database,
            core.repositories,
            core.jobs,
            core.client,
            clock=self._clock,
            settings=lambda: self.config.polling,
            rules_digest=self._rules_digest,
            on_found=self._workers.wake,
            on_missed=self._metrics.missed_webhooks.inc,
            on_polled=lambda outcome: self._metrics.polls.labels(outcome=outcome).inc(),
            on_identity=core.refresh,
        )
        self._hook_log = HookLog(core.database)
        self._recovery = Recovery(
            self._hook_log,
            core.repositories,
            core.jobs,
            core.client,
            clock=self._clock,
            url=lambda: self.config.webhook.delivery_url(),
            interval_seconds=lambda: self.config.polling.interval_seconds,
            on_found=self._workers.wake,
            on_missed=self._metrics.missed_webhooks.inc,
        )
        self._actions = ActionRunner(
            core.actions,
            core.snapshots,
            clock=self._clock,
            environ=self._environ,
            redact=Redactor(self.secret_values),
            on_end=self._metrics.action_ended,
            may_act=self._core.node.acts,
        )
        self._actions.configure(self.config.actions)
        self._addresses = HookAddresses(core.client.hook_addresses, clock=self._clock)
        self._writer.start()
        self._workers.start()
        self._actions.start()
        self._warn_of_budget()
        self._start_scheduler()
        self._listen_to_others()

    def _listen_to_others(self) -> None:
        """Hear at once of what other daemons on the store have written, which is otherwise found by looking."""
        self._listener = self._core.database.listener(
            {
                Topic.JOB: self._workers.wake,
                Topic.CHANGE: self._hear_of_change,
                Topic.TRACKED: lambda: self._scheduler.soon("tracked", self._hear_of_tracked),
                Topic.BUDGET: self._core.hear_budget,
            }
        )
        if self._listener is not None:
            self._listener.start()

    def _hear_of_change(self) -> None:
        self._hub.changed()
        self._actions.wake()

    def _hear_of_tracked(self) -> None:
        try:
            self._core.refresh()
        except StoreError as error:  # a minute later it is tried again
            log.debug("tracked.not_read", error=str(error))

    def _start_scheduler(self) -> None:
        self._scheduler = Scheduler()
        self._schedule_polls()
        self._scheduler.every("hook log", ROUND_SECONDS, self._recover, at_once=True)
        self._schedule_discovery()
        self._scheduler.every("sweep", SWEEP_SECONDS, self._sweep)
        self._scheduler.every("collect", SWEEP_SECONDS, self._collect)
        self._scheduler.every("checkpoint", CHECKPOINT_SECONDS, self._checkpoint)
        self._schedule_entities()
        self._schedule_addresses()
        self._scheduler.every("budget", BUDGET_SECONDS, self._core.share_budget)
        self._scheduler.every("watch", WATCH_SECONDS, self._watch)
        self._scheduler.every("sample", SAMPLE_SECONDS, self._samples.take, at_once=True)
        self._scheduler.every("heartbeat", HEARTBEAT_SECONDS, self._beat)
        if self._core.database.shared:  # as with all else that is told: sooner so, and found without it
            self._scheduler.every("tracking", TRACKING_SECONDS, self._hear_of_tracked)
        self._scheduler.soon("index", self._index)  # what a kill has left
        self._scheduler.soon("neighbours", self._look_for_neighbours)
        self._scheduler.soon("prune", self._sweep_pruned)
        self._scheduler.start()

    def _schedule_entities(self) -> None:
        self._scheduler.every("entities", ENTITY_SECONDS, self._renew_entities, at_once=True)

    def _schedule_addresses(self) -> None:
        self._scheduler.every("addresses", ADDRESSES_SECONDS, self._read_addresses, at_once=True)

    def _schedule_discovery(self) -> None:
        self._scheduler.every("discovery", DISCOVERY_SECONDS, self._discover, at_once=True)

    def _schedule_polls(self) -> None:
        self._scheduler.every("poll", tick_seconds(self.config.polling), self._poll, at_once=True)

    async def _start_listeners(self) -> None:
        inherited = systemd.listen_fds(environ=self._environ, pid=os.getpid())
        self._refuse_exposure(inherited)
        public = make_public_app(self._public_deps())
        admin = make_admin_app(self._admin_deps())
        self._listen("webhook", public, self.config.webhook.listen, inherited)
        self._listen("admin", admin, self.config.admin.listen, inherited)
        webhook, admin_url = (listener.url for listener in self._listeners)
        self._core.node.listens(admin_url)
        self._core.database.lock_note(webhook_url=webhook, admin_url=admin_url, webhook_path=self.config.webhook.path)
        log.info("daemon.listening", webhook=webhook + self.config.webhook.path, admin=admin_url)

    def _listen(
        self, name: str, application: web.Application, address: Address, inherited: Mapping[str, socket.socket]
    ) -> None:
        try:
            self._listeners.append(listen(application, address, inherited=inherited.get(name)))
        except OSError as error:
            why = str(error.strerror or error).partition(" (while")[0]  # asyncio tells the address in its own way
            key = f"{name}.listen"
            raise HeadwaterError(
                f"{key} = {address}: {why}; end what listens there, or have {key} name another address"
            ) from error

    def _refuse_exposure(self, inherited: Mapping[str, socket.socket]) -> None:
        """A socket from systemd may listen where the configuration would not have been allowed to."""
        webhook, admin = (
            Address.of_socket(inherited[name]) if name in inherited else configured
            for name, configured in (("webhook", self.config.webhook.listen), ("admin", self.config.admin.listen))
        )
        found = exposures(self.config, webhook=webhook, admin=admin)
        if problems := [Problem(str(self.config.source), keys[0], why) for keys, why in found]:
            raise ConfigError(problems)

    def _say_ready(self) -> None:
        log.info("daemon.ready", version=__version__, repositories=len(self._core.tracked))
        self._say_status("READY=1\n")
        self._scheduler.every("status", STATUS_SECONDS, self._say_status)

    def _say_status(self, more: str = "") -> None:
        """Tell systemd how it goes; ``more`` is what else to tell it in the same message."""
        if not self._environ.get("NOTIFY_SOCKET") or self._stop.is_set():
            return
        try:
            told = overview.sentence(self._core, now=self._clock.now())
        except StoreError as error:
            told = f"the store cannot be read: {error}"
        kept = "; the configuration on disk was refused, see the log" if self._refused else ""
        systemd.notify(f"{more}STATUS={told}{kept}", environ=self._environ)

    def _assert_store_sound(self) -> None:
        if failure := self._core.database.failure:
            raise StoreUnavailable(failure)

    async def _serve(self) -> None:
        beat = systemd.watchdog_seconds(environ=self._environ, pid=os.getpid())
        watches = [asyncio.create_task(one) for one in (self._look_out(), self._measure_lag())]
        watches += [asyncio.create_task(self._feed_watchdog(beat / 3))] if beat else []
        while not self._stop.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self._stop, self._reload)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if self._reload.is_set() and not self._stop.is_set():
                self._reload.clear()
                await asyncio.get_running_loop().run_in_executor(None, self.reload)
        for watch in watches:
            watch.cancel()

    async def _measure_lag(self) -> None:
        """How much later than asked this loop comes round."""
        while True:
            asked = self._clock.monotonic()
            await asyncio.sleep(LAG_INTERVAL_SECONDS)
            self._metrics.loop_lag_seconds.observe(max(0.0, self._clock.monotonic() - asked - LAG_INTERVAL_SECONDS))

    async def _look_out(self) -> None:
        """Wake the scheduler when the wall clock has jumped. By this loop's monotonic time: after a jump back the
        scheduler itself sleeps for as long as the jump was far.

        End when nothing can be trusted to reach the disk any more: a new process begins from what did.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if jump := self._clock_watch.jumped():
                log.warning("clock.jumped", seconds=round(jump.total_seconds(), 1))
                self._scheduler.run_all_now()
            if self._core.database.failure:
                self._stop.set()

    async def _feed_watchdog(self, seconds: float) -> None:
        """Beat only while a round trip through this loop and the writer succeeds, and workers and scheduler move.

        A worker that is busy for hours moves; a pool in which every one hangs can only be helped by a new process.
        """
        while True:
            try:
                await asyncio.wait_for(asyncio.wrap_future(self._writer.ping()), seconds)
                alive = self._workers.moving() and self._scheduler.alive()
            except (TimeoutError, HeadwaterError):
                alive = False
            if alive:
                systemd.notify("WATCHDOG=1", environ=self._environ)
            else:
                log.error("watchdog.not_fed", reasons=self._halted())
            await asyncio.sleep(seconds)

    def _halted(self) -> list[str]:
        """Which parts have died or hang; empty when all move."""
        reasons = []
        if not self._writer.alive():
            reasons.append("the delivery writer has died")
        if not self._workers.alive():
            reasons.append("a worker has died")
        elif not self._workers.moving():
            reasons.append("every worker hangs")
        if not self._actions.alive():
            reasons.append("the thread of the actions has died")
        if not self._scheduler.alive() or self._clock.monotonic() - self._last_tick > POLLER_STUCK_SECONDS:
            reasons.append("the scheduler does not run")
        return reasons

    async def _shut_down(self) -> None:
        timeout = self.config.server.shutdown_timeout_seconds
        deadline = self._clock.monotonic() + timeout
        log.info("daemon.stopping", timeout_seconds=timeout)
        if hasattr(self, "_hub"):
            self._hub.close()  # streams never end by themselves, and listeners wait for what is under way
        for listener in self._listeners:
            await listener.stop(min(5.0, timeout))
        await asyncio.get_running_loop().run_in_executor(None, self._stop_inside, deadline)
        log.info("daemon.stopped")

    def _stop_inside(self, deadline: float) -> None:
        if self._listener is not None:
            self._listener.stop()
        if hasattr(self, "_scheduler"):
            self._poller.stop()
            self._scheduler.stop()
            self._workers.stop(max(0.5, deadline - self._clock.monotonic() - 1.0))
            self._actions.stop(max(0.5, deadline - self._clock.monotonic() - 1.0))
            self._writer.stop(max(0.5, deadline - self._clock.monotonic()))
        if hasattr(self, "_core"):
            self._leave()
            self._core.close()

    # -- reload -----------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again: all of it applies or none of it."""
        systemd.notify(systemd.reloading(), environ=self._environ)
        self._refused = True
        try:
            self._apply(self._load())
            self._refused = False
        except ConfigError as error:
            for problem in error.problems:
                log.error("config.refused", problem=str(problem))
            log.error("config.kept", reason="the new configuration is invalid; the old one stays in force")
        except StoreError as error:
            log.error("config.kept", reason=f"the store cannot take the new configuration; reload later: {error}")
        self._say_status("READY=1\n")

    def _apply(self, new: Config) -> None:
        self._core.adopt(new)  # first, because it alone can fail
        for key in diff_needing_restart(self.config, new):
            log.warning("config.needs_restart", key=key)
        self.config = new
        logs.configure(new.log.level, new.log.format, secrets=self.secret_values)
        self._warn()
        self._core.client.reconfigure(client_settings(new))
        self._poller.forget_graphql_outage()
        self._recovery.forget_refusals()
        self._schedule_polls()
        self._schedule_discovery()
        self._schedule_entities()
        self._addresses.ask_again()
        self._schedule_addresses()
        self._workers.resize()
        self._workers.wake()
        self._actions.configure(new.actions)
        self._warn_of_budget()
        log.info("config.applied", repositories=len(self._core.tracked))

    def _warn(self) -> None:
        for sentence in self.config.advice:
            log.warning("config.unwise", reason=sentence)
        if not self.config.webhook.secrets():
            log.warning("webhook.development_mode", reason="no webhook.secret: signatures are not verified")
        if not self.config.github.configured:
            log.warning("github.not_configured", reason="no github.token and github.anonymous is false: nothing syncs")

    def _warn_of_budget(self) -> None:
        """Say so when polling needs more than GitHub allows: the copy will be staler than promised."""
        if not (self.config.polling.enabled and self.config.github.configured):
            return
        afford = overview.afford(self._core, list(self._core.repositories.every()), by_rest=self._poller.by_rest)
        if not afford.can_keep_promise:
            log.warning("polling.cannot_keep_promise", reason=afford.sentence)

    # -- scheduled calls --------------------------------------------------------------------------

    def _poll(self) -> None:
        if self.config.polling.enabled and self.config.github.configured:
            poll_safely(self._poller)
        self._last_tick = self._clock.monotonic()

    def _read_addresses(self) -> None:
        if self.config.webhook.github_hook_addresses:
            self._addresses.refresh()

    def _recover(self) -> None:
        if self.config.github.configured:
            recover_safely(self._recovery)

    def _discover(self) -> None:
        if self.config.github.configured:
            discover_safely(self._core.discovery)

    def _index(self) -> None:
        """Make text that came in bulk searchable, behind the sync that brought it."""
        try:
            count = self._core.search.catch_up()
        except StoreError as error:  # the sweep tries again
            log.warning("search.index_failed", error=str(error))
            return
        if count:
            log.info("search.indexed", contents=count)

    def _look_for_neighbours(self) -> None:
        if others := neighbours.sharers():
            log.warning("package.shared", distributions=others, remedy=neighbours.REMEDY)

    def _beat(self) -> None:
        try:
            self._core.node.beat()
            # What other nodes have learnt; who is told of it need not read all there is every time.
            if self._core.database.shared and not (self._listener and self._listener.hears()):
                self._core.refresh()
        except StoreUnavailable as error:
            log.warning("node.heartbeat_failed", error=str(error))

    def _leave(self) -> None:
        try:
            self._core.node.leave()
        except StoreError as error:  # it will be taken for dead, which it is
            log.warning("node.not_left", error=str(error))

    def _sweep(self) -> None:
        now = self._clock.now()
        if not self._agrees_with_github(now):
            log.warning("store.not_swept", reason="this machine's clock and GitHub's are days apart; correct it")
            return
        try:
            if not self._core.node.turn("sweep", SWEEP_SECONDS * 1.5):
                return
            retention = self.config.storage.delivery_retention_seconds
            rows = self._core.history.sweep(now=now, delivery_retention_seconds=retention)
            rows += self._core.snapshots.sweep(now=now)
            self._core.search.catch_up()
            rows += self._core.feed.sweep(
                now=now,
                keep_seconds=self.config.storage.change_retention_seconds,
                needed=self._core.actions.oldest_needed,
            )
        except StoreUnavailable as error:
            log.warning("store.sweep_failed", error=str(error))
            return
        log.debug("store.swept", rows=rows)

    def _collect(self) -> None:
        if not self._workers.running():
            gc.collect()

    def _agrees_with_github(self, now: datetime) -> bool:
        """Whether ages can be told by the wall clock: by one that is wrong everything would be old, and swept."""
        there = self._core.client.time_at_github()
        if there is None:  # not asked yet, or never will be
            return not self.config.github.configured
        return abs(now - there) < CLOCKS_APART

    def _sweep_pruned(self) -> None:
        """Remove the rows of what was pruned. What is left over is for the next start."""
        try:
            rows = self._core.pruning.sweep(check=self._unless_stopping)
        except Interrupted:
            return
        except StoreUnavailable as error:
            log.warning("store.prune_failed", error=str(error))
            return
        if rows:
            log.info("store.pruned", rows=rows)

    def _renew_entities(self) -> None:
        """Whose collections have changed: make the entities anew from the store. What is left over is for next time."""
        try:
            if not self._core.node.turn("entities", ENTITY_SECONDS * 3):
                return
            if done := self._core.renew_entities(check=self._unless_stopping):
                log.info("entities.renewed", branches=done)
        except Interrupted:
            log.debug("entities.interrupted")
        except StoreUnavailable as error:
            log.warning("entities.renewal_failed", error=str(error))

    def _unless_stopping(self) -> None:
        if self._stop.is_set():
            raise Interrupted

    def _checkpoint(self) -> None:
        try:
            self._core.database.checkpoint()
        except StoreUnavailable as error:
            log.warning("store.checkpoint_failed", error=str(error))

    def _watch(self) -> None:
        """Once a second: a worker that died is replaced."""
        if not self._workers.alive():
            log.error("worker.died")
            self._workers.resize()
        if not self._actions.alive():
            log.error("actions.died")
            self._actions.start()

    # -- what the parts ask of the daemon ---------------------------------------------------------

    def _worker_settings(self) -> SyncSettings:
        return self.config.sync

    def _rules_digest(self, target: PollTarget) -> str:
        return self._core.rules_of(target.query.repository).digest

    def _after_run(self, claim: Claim, result: RunResult) -> None:
        self._metrics.run_finished(claim, result)
        if result.outcome is Outcome.UPDATED:
            self._actions.wake()
            if result.added + result.modified > INDEXED_AT_ONCE:
                self._scheduler.soon("index", self._index)
        self._hub.sync_finished(claim, result)

    def _public_deps(self) -> PublicDeps:
        return PublicDeps(
            secrets=lambda: self.config.webhook.secrets(),
            path=self.config.webhook.path,
            max_body_bytes=lambda: self.config.webhook.max_body_bytes,
            senders=self._senders,
            tracking=lambda: self._core.tracking,
            configured=lambda: self.config.github.configured,
            submit=self._writer.submit,
            now=self._clock.now,
            metrics=self._metrics,
            executor=self._reads,
        )

    def _senders(self) -> Senders:
        webhook = self.config.webhook
        return Senders(webhook.github_hook_addresses, self._addresses.networks, webhook.trusted_proxies)

    def _admin_deps(self) -> AdminDeps:
        core = self._core
        return AdminDeps(
            database=core.database,
            token=lambda: self.config.admin.token(),
            allowed_hosts=lambda: self.config.admin.allowed_hosts,
            repositories=core.repositories,
            jobs=core.jobs,
            snapshots=core.snapshots,
            history=core.history,
            entities=core.entities,
            actions=core.actions,
            retry_actions=self._actions.retry,
            feed=core.feed,
            hub=self._hub,
            search=core.search,
            node=self._core.node.id,
            nodes=self._core.node.every,
            executor=self._reads,
            promise=self._promise,
            syncs=self._workers.progress,
            ready=self._not_ready,
            status=self._status,
            want=self._want,
            prune=self._prune,
            look_at_webhook=self._hook_log.anew,
            configured=lambda: self.config.github.configured,
            metrics=self._render_metrics,
            now=self._clock.now,
            samples=self._samples.every,
            sessions=self._sessions,
        )

    def _want(self, branch_ids: list[int], trigger: Trigger) -> None:
        self._core.jobs.want(branch_ids, trigger, now=self._clock.now())
        self._workers.wake()

    def _prune(self, full_name: str) -> bool:
        pruned = self._core.prune(full_name)
        if pruned:
            log.info("repository.pruned", repository=full_name)
            self._scheduler.soon("prune", self._sweep_pruned)
        return pruned

    def _promise(self, repository: RepositoryRecord) -> float:
        return promised_seconds(repository.webhook, self.config.polling, archived=repository.archived)

    def _not_ready(self) -> list[str]:
        """Why the daemon is not ready; empty when it can store and its parts live."""
        reasons = self._halted()
        try:
            self._core.database.check()
        except HeadwaterError as error:
            log.warning("readiness.store", error=str(error))
            reasons.append("the store cannot be written")  # who asks need not be allowed to see paths
        return reasons

    def _status(self) -> dict[str, object]:
        return overview.status(
            self._core,
            started_at=self._started_at,
            now=self._clock.now(),
            webhook_secrets=len(self.config.webhook.secrets()),
            by_rest=self._poller.by_rest,
            syncs=self._workers.progress(),
        )

    def _render_metrics(self) -> bytes:
        with self._scraping:  # what one scrape has cleared another must not tell
            overview.measure(self._core, self._metrics, now=self._clock.now(), by_rest=self._poller.by_rest)
            return self._metrics.render()
