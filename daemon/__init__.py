"""headwater: a queryable copy of GitHub repositories that never goes silently stale.

Push webhooks are hints and make it fast; scheduled polling is the guarantee; both bump a generation
on one durable row per branch, and one routine brings the branch up to date and proves the result:
the git tree id recomputed from what is stored equals the commit's tree id.

The house, in the direction data flows::

    triggers/   ways in: intake of deliveries, poller, schedule
    sync/       the one way to a new snapshot: queue, workers, routine, plan, proof
    github/     the only door to GitHub
    store/      Peewee stays in here
    web/        ways out: public webhook listener, admin API, dashboard
    demo/       a stand-in of GitHub over local git repositories, and a guided tour
"""

from daemon.version import __version__

__all__ = ["__version__"]
