"""MongoDB through PyMongo's own asynchronous API. No transaction of several documents is needed."""

from authwright.storage.mongo.store import MongoStore, mongo_store

__all__ = ["MongoStore", "mongo_store"]
