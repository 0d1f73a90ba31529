-- What recovery has to remember: how long a replaced pair may still be in use, how often and since when JFrog refuses a user,
-- and which database this is, so that a copy of it is noticed.
alter table chains add column sweep_after timestamptz not null default 'epoch';
comment on column chains.sweep_after is 'until then, what a heal or a recreate replaced may still be in use: nothing with this chain''s marker is revoked';

alter table tokens
    add column rejected_since timestamptz,
    add column rejections integer not null default 0,
    add constraint tokens_rejected check ((rejected_since is null) = (rejections = 0));
comment on column tokens.rejected_since is 'when JFrog first answered 401 to one of its bearers, with no success since';
comment on column tokens.rejections is 'how often it did since then';

alter table installation
    add column database_identity text,
    add column previous_ids uuid[] not null default '{}';
comment on column installation.database_identity is 'the server''s and the database''s identity where the service runs; another one means that this is a copy. Null: not started yet';
comment on column installation.previous_ids is 'ids of which this was a copy, and ids of journals that were adopted with it';
grant update on installation to token_broker_app;

-- The same on a physical standby, another one after a dump was restored or a database was used as a template.
create function database_identity() returns text language sql stable as
$$ select (select system_identifier from pg_control_system()) || '/' || (select oid from pg_database where datname = current_database()) $$;
comment on function database_identity is 'which database of which server this is';

create function protected_for(reuse_for integer, refreshed_at timestamptz, expires_at timestamptz) returns double precision
language sql immutable as
$$ select reuse + least(15, reuse / 10) from effective_reuse_for(reuse_for, refreshed_at, expires_at) as reuse $$;
comment on function protected_for is 'effective_reuse_for and a margin, seconds: a pair may still be on its way to a caller when another takes its place';

create index tokens_refused_users on tokens (instance, subject) where last_error_kind = 'jfrog-unauthenticated';
create function user_refused_at(of_instance text, of_subject text) returns timestamptz language sql stable security definer as
$$ select max(t.last_error_at) from tokens t
   where t.instance = of_instance and t.subject = of_subject and t.last_error_kind = 'jfrog-unauthenticated' $$;
comment on function user_refused_at is 'when JFrog last answered 401 for this user, whichever token of whichever team it was: JFrog locks users, not tokens';

do $$
begin
    execute format('grant create on schema %I to token_broker_lookup', current_schema());
    execute format('alter function user_refused_at(text, text) set search_path = %I, pg_temp', current_schema());
    revoke all on function user_refused_at(text, text) from public;
    grant execute on function user_refused_at(text, text) to token_broker_app;
    alter function user_refused_at(text, text) owner to token_broker_lookup;
    execute format('revoke create on schema %I from token_broker_lookup', current_schema());
end $$;
