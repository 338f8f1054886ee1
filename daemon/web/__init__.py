"""The two HTTP listeners: public webhook intake and the admin API."""
