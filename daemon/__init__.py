"""headwater: a queryable copy of GitHub repositories that never goes silently stale.

Push webhooks are hints and make it fast; scheduled polling is the guarantee; both bump a generation
on one durable row per branch, and one routine brings the branch up to date and proves the result:
the git tree id recomputed from what is stored equals the commit's tree id.

The house, in the direction data flows::

    triggers/   ways in: intake of deliveries, poller, schedule, discovery, GitHub's delivery log
    sync/       the one way to a new snapshot: workers, routine, plan, content, proof, entities
    github/     the only door to GitHub: client, governor, Apps, webhooks
    store/      Peewee stays in here: SQLite or PostgreSQL, jobs, snapshots, history, search
    web/        ways out: public webhook listener, admin API, event stream, dashboard
    actions/    ways out: what is done after a change: a command, a URL, a published folder
    commands/   what the commands of `headwater` do; cli takes their arguments
    demo/       a stand-in of GitHub over local git repositories, and a guided tour
"""

from daemon.version import __version__

__all__ = ["__version__"]
