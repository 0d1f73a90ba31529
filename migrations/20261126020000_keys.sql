-- Keys that change. A master key is retired, and a data key deleted, only when nothing needs it any more: the database sees to it, in
-- the transaction that would need it, whichever statement that is.
alter table master_keys
    add column rewrap_asked_at timestamptz,
    add column retired_at timestamptz;
comment on column master_keys.rewrap_asked_at is 'keys that other master keys wrap are to be wrapped by this one; null: not asked for, or done';
comment on column master_keys.retired_at is 'nothing is wrapped by it from then on, and nothing that is here needs it';
-- Column by column: what locks a row needs it.
grant update (rewrap_asked_at, retired_at) on master_keys to token_broker_app;

alter table teams add column rotation_asked_at timestamptz;
comment on column teams.rotation_asked_at is 'a new data key is to be made; null: none was asked for, or it is made';

alter table data_keys
    add column rotated_at timestamptz,
    add column closed_at timestamptz,
    add constraint data_keys_rotated check ((rotated_at is null) = current),
    add constraint data_keys_closed check (closed_at is null or not current);
comment on column data_keys.rotated_at is 'when another took its place: for a while replicas that have not noticed may seal with it still';
comment on column data_keys.closed_at is 'nothing is sealed with it from then on; it is deleted once no row needs it';
create index chains_team on chains (team_id);

create table journals (
    id uuid constraint journals_pkey primary key,
    needs text[] not null,
    holds text[] not null,
    reported_at timestamptz not null default now()
);
comment on table journals is 'what each replica''s journal needs: files that this database cannot see';
comment on column journals.id is 'lies in the journal''s directory';
comment on column journals.needs is 'master keys that its entries are wrapped by, or are wrapped by from now on';
comment on column journals.holds is 'master keys that its replica was given, the wrapping one first';
comment on column journals.reported_at is 'when; a replica that is away counts as needing what it said last';
grant select, insert, update, delete on journals to token_broker_app;

-- Which data key opens a sealed value; null: it is not of our format. Never fails.
create function sealed_by(sealed bytea) returns uuid language sql immutable strict parallel safe as
$$ select case when length(sealed) > 38 and substring(sealed from 1 for 2) = '\x0124'
               and encode(substring(sealed from 3 for 36), 'escape') ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
          then encode(substring(sealed from 3 for 36), 'escape')::uuid end $$;
comment on function sealed_by is 'the id that stands in front of a sealed value (src/crypto/seal.rs)';

create function sealed_rows(of_team uuid) returns table (holder text, id uuid, keys uuid[]) language sql stable as
$$ select 'chains', c.id, array[sealed_by(c.access_token), sealed_by(c.refresh_token), sealed_by(c.reference_token), sealed_by(c.replaced_access_token)]
   from chains c where c.team_id = of_team and (c.access_token is not null or c.replaced_access_token is not null)
   union all select 'tokens', t.id, array[sealed_by(t.identity_token)] from tokens t where t.team_id = of_team and t.identity_token is not null
   union all select 'webhooks', w.id, array[sealed_by(w.target)] from webhooks w where w.team_id = of_team $$;
comment on function sealed_rows is 'every row of a team that holds something sealed, and which data keys open it';

-- Whatever is written was sealed with a key that may still seal: a replica that was asleep for an hour must not bring back a key that
-- is about to go. What a row had already may move within it.
create function sealed_by_open_key() returns trigger language plpgsql as
$$ declare written bytea[]; had bytea[] := '{}'; key uuid;
begin
    if tg_table_name = 'chains' then
        written := array[new.access_token, new.refresh_token, new.reference_token, new.replaced_access_token];
        if tg_op = 'UPDATE' then had := array[old.access_token, old.refresh_token, old.reference_token, old.replaced_access_token]; end if;
    elsif tg_table_name = 'tokens' then
        written := array[new.identity_token];
        if tg_op = 'UPDATE' then had := array[old.identity_token]; end if;
    else
        written := array[new.target];
        if tg_op = 'UPDATE' then had := array[old.target]; end if;
    end if;
    for key in select distinct sealed_by(w) from unnest(written) w where sealed_by(w) is not null and w <> all (array_remove(had, null)) loop
        -- The lock waits for who is just closing it.
        perform from data_keys d where d.id = key and d.team_id = new.team_id and d.closed_at is null for share;
        if not found then
            raise exception 'data key % is closed', key using errcode = 'foreign_key_violation', constraint = 'sealed_by_open_key';
        end if;
    end loop;
    return new;
end $$;
comment on function sealed_by_open_key is 'refuses what was sealed with a key that is closed, or another team''s';
create trigger sealed_by_open_key before insert or update of access_token, refresh_token, reference_token, replaced_access_token on chains
    for each row execute function sealed_by_open_key();
create trigger sealed_by_open_key before insert or update of identity_token on tokens for each row execute function sealed_by_open_key();
create trigger sealed_by_open_key before insert or update of target on webhooks for each row execute function sealed_by_open_key();

create function wrapped_by_usable_key() returns trigger language plpgsql as
$$ begin
    -- The lock waits for who is just retiring it.
    perform from master_keys m where m.id = new.master_key_id and m.retired_at is null for share;
    if not found then
        raise exception 'master key % is retired', new.master_key_id
              using errcode = 'foreign_key_violation', constraint = 'wrapped_by_usable_key';
    end if;
    return new;
end $$;
comment on function wrapped_by_usable_key is 'for every table of wrapped keys: nothing is wrapped by a master key that was retired';
create trigger wrapped_by_usable_key before insert or update of master_key_id on data_keys
    for each row execute function wrapped_by_usable_key();
create trigger wrapped_by_usable_key before insert or update of master_key_id on audit_keys
    for each row execute function wrapped_by_usable_key();

-- Across teams. Another table of wrapped keys is added to the first two, and to `Holder` in src/store/wrapped_keys.rs.
create function wrapped_keys(not_by text, after uuid, page integer)
    returns table (holder text, id uuid, team_id uuid, master_key_id text, wrapped bytea) language sql stable security definer as
$$ select * from (
       select 'data_keys', d.id, d.team_id, d.master_key_id, d.wrapped from data_keys d
       union all select 'audit_keys', a.id, '00000000-0000-0000-0000-000000000000', a.master_key_id, a.wrapped from audit_keys a
   ) k (holder, id, team_id, master_key_id, wrapped)
   where k.master_key_id <> not_by and k.id > after order by k.id limit page $$;
comment on function wrapped_keys is 'wrapped keys of all tables, but those wrapped by one master key already';

create function wrapped_key_counts() returns table (holder text, master_key_id text, keys bigint) language sql stable security definer as
$$ select 'data_keys', d.master_key_id, count(*) from data_keys d group by d.master_key_id
   union all select 'audit_keys', a.master_key_id, count(*) from audit_keys a group by a.master_key_id $$;
comment on function wrapped_key_counts is 'how many keys each master key wraps, by table';

create or replace function master_keys_in_use() returns setof text language sql stable security definer as
$$ select distinct c.master_key_id from wrapped_key_counts() c $$;

create function reseal_progress() returns table (keys bigint, old_keys bigint, teams_waiting bigint, rows bigint, rows_left bigint)
    language sql stable security definer as
$$ with old as (select d.team_id, array_agg(d.id) as ids from data_keys d where not d.current group by d.team_id),
        found as (select r.keys && old.ids as is_left from old, sealed_rows(old.team_id) r)
   select (select count(*) from data_keys), (select count(*) from data_keys d where not d.current),
          (select count(*) from teams t where t.rotation_asked_at is not null),
          (select count(*) from found), (select count(*) from found where is_left) $$;
comment on function reseal_progress is 'how far the rotation of data keys is: rows of the teams that have old keys, and those that need one of them';

create function data_keys_page(of_team uuid, after uuid, page integer)
    returns table (id uuid, team text, master_key_id text, current boolean, created_at timestamptz, rotated_at timestamptz,
                   closed_at timestamptz, rows bigint)
    language sql stable security definer as
$$ select d.id, t.name, d.master_key_id, d.current, d.created_at, d.rotated_at, d.closed_at,
          (select count(*) from sealed_rows(d.team_id) r where d.id = any (r.keys))
   from (select * from data_keys k where (k.team_id = of_team or of_team is null) and k.id > after order by k.id limit page) d
        join teams t on t.id = d.team_id
   order by d.id $$;
comment on function data_keys_page is 'data keys, and how many rows need each';

create function master_key_needs(wanted text) returns text[] language sql stable as
$$ select coalesce(array_agg(n.said order by n.said), '{}') from (
       select format('%s rows of %s', c.keys, c.holder) as said from wrapped_key_counts() c where c.master_key_id = wanted
       union all
       select format('journal %s, which reported at %s', j.id, to_char(j.reported_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
       from journals j where wanted = any (j.needs)) n $$;
comment on function master_key_needs is 'what cannot be opened without this master key, for people';

create function retire_master_key(wanted text) returns text[] language plpgsql volatile as
$$ declare needs text[];
begin
    perform from master_keys m where m.id = wanted for update;
    if not found then
        return null;
    end if;
    -- A statement of its own, after the lock: it sees whatever was wrapped before, and nothing is wrapped after.
    needs := master_key_needs(wanted);
    if needs = '{}' then
        update master_keys m set retired_at = coalesce(m.retired_at, now()), rewrap_asked_at = null where m.id = wanted;
    end if;
    return needs;
end $$;
comment on function retire_master_key is 'retires a master key that nothing needs; returns what needs it, null: there is none of this id';

do $$
declare door text;
begin
    execute format('grant create on schema %I to token_broker_lookup', current_schema());
    foreach door in array array['wrapped_keys(text, uuid, integer)', 'wrapped_key_counts()', 'master_keys_in_use()', 'reseal_progress()',
                                'data_keys_page(uuid, uuid, integer)'] loop
        execute format('alter function %s set search_path = %I, pg_temp', door, current_schema());
        execute format('revoke all on function %s from public', door);
        execute format('grant execute on function %s to token_broker_app, token_broker_lookup', door);
        execute format('alter function %s owner to token_broker_lookup', door);
    end loop;
    execute format('revoke create on schema %I from token_broker_lookup', current_schema());
end $$;
