-- Tamper evidence: audit rows are closed in batches, each of which is bound to the one before by a digest with a key that is not in
-- the database. Nothing is locked for it, and who writes an audit row does not know of it.
create table audit_keys (
    id uuid constraint audit_keys_pkey primary key,
    master_key_id text not null constraint audit_keys_master_key_fkey references master_keys,
    wrapped bytea not null,
    created_at timestamptz not null default now()
);
comment on table audit_keys is 'the key of the chain of audit batches, wrapped by a master key: without it nobody can make a batch that fits';
comment on column audit_keys.id is 'in the associated data of the wrapped key';
comment on column audit_keys.master_key_id is 'which master key unwraps it';
comment on column audit_keys.wrapped is 'the key, sealed by the master key; its owner there is nil, the platform';
comment on column audit_keys.created_at is 'when';

create table audit_batches (
    number bigint constraint audit_batches_pkey primary key constraint audit_batches_number check (number > 0),
    key_id uuid not null constraint audit_batches_key_fkey references audit_keys,
    last_id bigint not null,
    events integer not null constraint audit_batches_events check (events > 0),
    digest bytea not null,
    rows bytea,
    head bytea not null,
    closed_at timestamptz not null,
    pruned bytea,
    constraint audit_batches_pruned check ((rows is null) = (pruned is not null))
);
comment on table audit_batches is 'the chain: what stood in audit_events when a batch of it was closed; only ever inserted, and marked when pruned';
comment on column audit_batches.number is 'from 1 without a gap: two replicas cannot both close one';
comment on column audit_batches.key_id is 'which key made the head';
comment on column audit_batches.last_id is 'the batch is every audit row after the last batch''s last_id up to this one; an id between them that no row has will never have one';
comment on column audit_batches.events is 'how many rows';
comment on column audit_batches.digest is 'SHA-256 of the list in rows';
comment on column audit_batches.rows is 'each row''s id and SHA-256, 40 bytes a row: tells which row was changed';
comment on column audit_batches.head is 'HMAC-SHA-256 of this row''s number, last_id, events, digest and closed_at, and of the last batch''s head';
comment on column audit_batches.closed_at is 'when: later than all its rows';
comment on column audit_batches.pruned is 'HMAC-SHA-256 of the head: an operator with the key removed the rows. Null: they are there';

-- They are of all teams: visible to the platform alone. The service can add to the chain and change nothing in it.
alter table audit_keys enable row level security;
alter table audit_keys force row level security;
create policy audit_keys_own on audit_keys using (is_platform());
alter table audit_batches enable row level security;
alter table audit_batches force row level security;
create policy audit_batches_own on audit_batches using (is_platform());
grant select, insert, update on audit_keys to token_broker_app; -- a new master key wraps it anew
grant select, insert on audit_batches to token_broker_app;
create policy lookup on audit_keys for select to token_broker_lookup using (true);
grant select on audit_keys to token_broker_lookup;

-- `audit prune` removes rows, as the tables' owner: the service's role may not delete here, whatever a policy says.
create policy prune on audit_events for delete using (current_user <> 'token_broker_app');
comment on table audit_events is 'one row for each thing done or refused, committed with what it records; never changed, and removed by `audit prune` alone';

create or replace function master_keys_in_use() returns setof text language sql stable security definer as
$$ select d.master_key_id from data_keys d union select k.master_key_id from audit_keys k $$;

create function audit_ahead(first_id bigint, most integer) returns table (events bigint, last_id bigint)
    language sql stable security definer as
$$ select count(*), max(ahead.id) from (select a.id from audit_events a where a.id >= first_id order by a.id limit most) ahead $$;
comment on function audit_ahead is 'how many rows there are from this id on, at most so many (null: all), and the last one''s id';

-- A text of each column, which is the same whenever and by whomever it is read; a later column is appended, so that rows without it
-- keep their digest.
create function audit_rows(first_id bigint, upto bigint, page integer) returns table (id bigint, fields text[])
    language sql stable security definer as
$$ select a.id, array[a.at::text, a.team_id::text, a.actor, a.recognised_by::text, a.action, a.outcome, a.reason, a.token_id::text,
                      a.token_name, a.jfrog_token_id, a.fingerprint, a.generation::text, a.request_id, a.address, a.detail::text]
   from audit_events a where a.id >= first_id and a.id <= upto order by a.id limit page $$;
comment on function audit_rows is 'a page of all teams'' rows, for their digests';

do $$
declare door text;
begin
    execute format('grant create on schema %I to token_broker_lookup', current_schema());
    foreach door in array array['master_keys_in_use()', 'audit_ahead(bigint, integer)', 'audit_rows(bigint, bigint, integer)'] loop
        execute format('alter function %s set search_path = %I, pg_temp', door, current_schema());
        execute format('revoke all on function %s from public', door);
        execute format('grant execute on function %s to token_broker_app', door);
        execute format('alter function %s owner to token_broker_lookup', door);
    end loop;
    alter function audit_rows(bigint, bigint, integer) set timezone = 'UTC';
    alter function audit_rows(bigint, bigint, integer) set datestyle = 'ISO, YMD';
    execute format('revoke create on schema %I from token_broker_lookup', current_schema());
end $$;
