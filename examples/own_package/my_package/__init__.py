"""A method, a dataset and a subset rule outside of ssl_lightning's repository."""
