-- A start looks with the connection that it has whether there is anything to migrate: most find nothing, and need no other account's.
grant select on _sqlx_migrations to token_broker_app;
