"""Everything that must survive a kill. Peewee stays in here."""
