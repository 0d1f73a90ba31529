-- Everything the broker keeps. Forward only: never edited once merged.
--
-- Two roles own nothing and cannot log in. `serve` works as token_broker_app, which sees only the team that its statement
-- names with in_team(). token_broker_lookup is what the few security definer functions at the end run as: it may read across
-- teams, and write nothing. Roles belong to the whole cluster, so they may be there already.
do $$
begin
    begin create role token_broker_app nologin; exception when duplicate_object or unique_violation then null; end;
    begin create role token_broker_lookup nologin; exception when duplicate_object or unique_violation then null; end;
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant token_broker_app, token_broker_lookup to %I', current_user);
    end if;
    execute format('grant usage on schema %I to token_broker_app, token_broker_lookup', current_schema());
end $$;

-- The team that the running statement is for. Nil is the platform, which owns what belongs to no team.
create function current_team() returns uuid language sql stable as
$$ select nullif(current_setting('token_broker.team', true), '')::uuid $$;
comment on function current_team is 'the team set by in_team() for this transaction, or null: then no row is visible';

-- Used as `where (select in_team($1))`: an uncorrelated subquery is planned as a one-time filter above the scans, so it has run
-- before a row-level policy is asked. Were it ever to run later, the statement would see no row: it fails closed.
create function in_team(team uuid) returns boolean language plpgsql volatile as
$$ begin
    perform set_config('token_broker.team', team::text, true);
    return true;
end $$;
comment on function in_team is 'names the team this transaction works for; true';

create function is_platform() returns boolean language sql stable as
$$ select current_team() = '00000000-0000-0000-0000-000000000000' $$;
comment on function is_platform is 'whether this transaction works for the platform';

create function effective_reuse_for(reuse_for integer, refreshed_at timestamptz, expires_at timestamptz) returns double precision
language sql immutable as
$$ select case when expires_at is null then reuse_for  -- least() and greatest() would pass over the null
          else least(reuse_for, greatest(0, floor((extract(epoch from expires_at - refreshed_at) - 60) / 2))) end::double precision $$;
comment on function effective_reuse_for is 'reuse_for, bounded by what a pair of this lifetime can keep: (lifetime - 60 s) / 2; seconds';

create table installation (
    one boolean not null default true constraint installation_pkey primary key constraint installation_one check (one),
    id uuid not null default gen_random_uuid(),
    created_at timestamptz not null default now()
);
comment on table installation is 'which installation this database is; a copy has the same id, its journal directory another';
comment on column installation.one is 'there is one row';
comment on column installation.id is 'stands in the marker of every chain at JFrog and in the journal directory';
comment on column installation.created_at is 'when this installation began';
insert into installation default values;

create table master_keys (
    id text constraint master_keys_pkey primary key,
    canary bytea not null,
    created_at timestamptz not null default now()
);
comment on table master_keys is 'the master keys ever used; never the keys themselves';
comment on column master_keys.id is 'the name given in TOKEN_BROKER_MASTER_KEYS';
comment on column master_keys.canary is 'a known text sealed by the key: a key that does not open it is the wrong one';
comment on column master_keys.created_at is 'when the key was first used';

create table teams (
    id uuid constraint teams_pkey primary key,
    name text not null constraint teams_name_key unique,
    description text not null,
    created_at timestamptz not null default now(),
    created_by text not null
);
comment on table teams is 'who owns tokens';
comment on column teams.id is 'never shown';
comment on column teams.name is 'what callers write';
comment on column teams.description is 'for people';
comment on column teams.created_at is 'when';
comment on column teams.created_by is 'by whom, as the audit writes it';

create table data_keys (
    id uuid constraint data_keys_pkey primary key,
    team_id uuid not null constraint data_keys_team_fkey references teams on delete cascade,
    master_key_id text not null constraint data_keys_master_key_fkey references master_keys,
    wrapped bytea not null,
    current boolean not null,
    created_at timestamptz not null default now()
);
comment on table data_keys is 'one AES-256 key a team, wrapped by a master key; without it the team''s sealed bytes are noise';
comment on column data_keys.id is 'stands in every sealed value';
comment on column data_keys.team_id is 'whose';
comment on column data_keys.master_key_id is 'which master key unwraps it';
comment on column data_keys.wrapped is 'the key, sealed by the master key';
comment on column data_keys.current is 'seals new values; the others only open';
comment on column data_keys.created_at is 'when';
create unique index data_keys_current on data_keys (team_id) where current;

create table api_keys (
    id uuid constraint api_keys_pkey primary key,
    team_id uuid constraint api_keys_team_fkey references teams on delete cascade,
    name text not null,
    role text not null constraint api_keys_role check (role in ('ci', 'viewer', 'admin', 'platform-admin')),
    token_patterns text[] not null,
    public_id text not null constraint api_keys_public_id_key unique,
    secret_sha256 bytea not null constraint api_keys_sha256 check (length(secret_sha256) = 32),
    created_at timestamptz not null default now(),
    created_by text not null,
    expires_at timestamptz,
    last_used_at timestamptz,
    constraint api_keys_platform check ((role = 'platform-admin') = (team_id is null)),
    constraint api_keys_name_key unique nulls not distinct (team_id, name)
);
comment on table api_keys is 'long-lived credentials of callers without a CI identity';
comment on column api_keys.id is 'internal';
comment on column api_keys.team_id is 'null: a platform key';
comment on column api_keys.name is 'unique in its team';
comment on column api_keys.role is 'what it may do';
comment on column api_keys.token_patterns is 'which tokens: names and * globs';
comment on column api_keys.public_id is 'the part of the key that finds this row';
comment on column api_keys.secret_sha256 is 'SHA-256 of the whole key; the key itself is kept nowhere';
comment on column api_keys.created_at is 'when';
comment on column api_keys.created_by is 'by whom, as the audit writes it';
comment on column api_keys.expires_at is 'null: never';
comment on column api_keys.last_used_at is 'to the minute';

create table tokens (
    id uuid constraint tokens_pkey primary key,
    team_id uuid not null constraint tokens_team_fkey references teams,
    name text not null,
    description text not null,
    instance text not null,
    scope text,
    audience text,
    project_key text,
    expires_in bigint,
    include_reference_token boolean not null,
    reuse_for integer not null constraint tokens_reuse_for check (reuse_for >= 0),
    imported boolean not null,
    chain_count smallint not null constraint tokens_chain_count check (chain_count in (1, 2)),
    subject text,
    state text not null constraint tokens_state check (state in ('creating', 'registered', 'revoked')),
    generation bigint not null default 0,
    rotatable_at timestamptz not null default 'epoch',
    heal_after timestamptz not null default 'epoch',
    identity_token bytea,
    identity_token_until timestamptz,
    idempotency_key text,
    request_sha256 bytea,
    last_error_at timestamptz,
    last_error_kind text,
    last_error_detail text,
    created_at timestamptz not null default now(),
    created_by text not null,
    constraint tokens_name_key unique (team_id, name),
    constraint tokens_idempotency_key unique (idempotency_key, team_id),
    constraint tokens_identity_token check ((identity_token is null) = (identity_token_until is null))
);
comment on table tokens is 'a registration: a name behind which the broker keeps JFrog credentials alive';
comment on column tokens.id is 'stands in the marker of its chains at JFrog';
comment on column tokens.team_id is 'whose';
comment on column tokens.name is 'unique in its team';
comment on column tokens.description is 'for people, here and at JFrog';
comment on column tokens.instance is 'which configured JFrog';
comment on column tokens.scope is 'asked of JFrog; null: its default';
comment on column tokens.audience is 'asked of JFrog; null: its default';
comment on column tokens.project_key is 'asked of JFrog; null: none';
comment on column tokens.expires_in is 'asked of JFrog, seconds; null: its default, 0: never';
comment on column tokens.include_reference_token is 'asked of JFrog at each create and refresh';
comment on column tokens.reuse_for is 'seconds a token that was handed out must go on working';
comment on column tokens.imported is 'adopted from a pasted pair, which is dead once the registration is complete';
comment on column tokens.chain_count is '2, or 1 with the weaker promise';
comment on column tokens.subject is 'JFrog''s sub claim of the access tokens';
comment on column tokens.state is 'creating until its chains are made; revoked while a delete could not reach JFrog';
comment on column tokens.generation is 'counts the pairs handed out under this name, from 1';
comment on column tokens.rotatable_at is 'no rotation before: raised in every transaction that changes which chain is handed out';
comment on column tokens.heal_after is 'JFrog refused to make the missing chain: not tried again before; until then the token lives on one chain';
comment on column tokens.identity_token is 'sealed; there only while the chains are being made';
comment on column tokens.identity_token_until is 'when it is destroyed at the latest';
comment on column tokens.idempotency_key is 'of the request that registered it';
comment on column tokens.request_sha256 is 'of that request without its identity token: the same key with another request is refused';
comment on column tokens.last_error_at is 'when the last thing went wrong; null again after a success';
comment on column tokens.last_error_kind is 'a word for programs';
comment on column tokens.last_error_detail is 'a sentence for admins; may quote JFrog';
comment on column tokens.created_at is 'when';
comment on column tokens.created_by is 'by whom, as the audit writes it';

create table chains (
    id uuid constraint chains_pkey primary key,
    token_id uuid not null constraint chains_token_fkey references tokens on delete cascade,
    team_id uuid not null constraint chains_team_fkey references teams,
    letter text not null constraint chains_letter check (letter in ('a', 'b')),
    state text not null constraint chains_state check (state in ('active', 'uncertain', 'lost')),
    generation bigint not null default 0,
    resent boolean not null default false,
    access_token bytea,
    refresh_token bytea,
    reference_token bytea,
    jfrog_token_id text,
    fingerprint text,
    scope text,
    refreshed_at timestamptz,
    expires_at timestamptz,
    replaced_access_token bytea,
    replaced_generation bigint,
    replaced_jfrog_token_id text,
    constraint chains_letter_key unique (token_id, letter),
    constraint chains_pair check ((generation = 0) = (access_token is null) and (generation = 0) = (refreshed_at is null)),
    constraint chains_active check (state <> 'active' or generation > 0)
);
comment on table chains is 'the two independent lines of a token: each an access token, a refresh token, perhaps a reference token';
comment on column chains.id is 'in the associated data of its sealed values';
comment on column chains.token_id is 'of which token';
comment on column chains.team_id is 'whose';
comment on column chains.letter is 'a or b; in the marker at JFrog';
comment on column chains.state is 'lost also means: not made yet';
comment on column chains.generation is 'counts this chain''s pairs, from 1; 0: none yet. In the associated data, so an old pair put back does not open';
comment on column chains.resent is 'uncertain, and its refresh token was sent once more to find out: never again';
comment on column chains.access_token is 'sealed';
comment on column chains.refresh_token is 'sealed; single-use, leaves this service towards JFrog only';
comment on column chains.reference_token is 'sealed; null where none was asked for';
comment on column chains.jfrog_token_id is 'JFrog''s token_id';
comment on column chains.fingerprint is 'first 16 hex digits of the access token''s SHA-256';
comment on column chains.scope is 'what JFrog granted';
comment on column chains.refreshed_at is 'when the attempt that obtained the pair began: never later than the pair''s issue';
comment on column chains.replaced_access_token is 'sealed; of the pair that a heal or a recreate replaced: it revokes itself once its holders had their reuse_for';
comment on column chains.replaced_generation is 'which generation that pair was, for opening it';
comment on column chains.replaced_jfrog_token_id is 'JFrog''s id of it';
comment on column chains.expires_at is 'refreshed_at + JFrog''s expires_in; null with a pair: never';

create table attempts (
    token_id uuid constraint attempts_pkey primary key constraint attempts_token_fkey references tokens on delete cascade,
    id uuid not null constraint attempts_id_key unique,
    team_id uuid not null constraint attempts_team_fkey references teams,
    chain_id uuid constraint attempts_chain_fkey references chains on delete cascade,
    kind text not null constraint attempts_kind check (kind in ('create', 'rotate', 'heal', 'settle', 'recreate', 'delete', 'sweep')),
    spent_generation bigint not null,
    begun_at timestamptz not null default now(),
    lease_until timestamptz not null,
    replica uuid not null,
    actor text not null
);
comment on table attempts is 'the one thing under way for a token: written before JFrog hears of it';
comment on column attempts.token_id is 'one attempt a token, not a chain';
comment on column attempts.id is 'names the journal entry; who ends an attempt names it, so a late owner ends nothing of another''s';
comment on column attempts.team_id is 'whose';
comment on column attempts.chain_id is 'which chain; null: the whole token';
comment on column attempts.kind is 'what is being done';
comment on column attempts.spent_generation is 'the chain''s generation when it began: the result is committed only onto it';
comment on column attempts.begun_at is 'when';
comment on column attempts.lease_until is 'until then nobody else touches the token; afterwards its outcome is found out';
comment on column attempts.replica is 'which process';
comment on column attempts.actor is 'for whom, as the audit writes it';

create table jobs (
    kind text not null constraint jobs_kind check (kind in ('settle', 'sweep', 'keep-alive')),
    subject uuid not null,
    due_at timestamptz not null,
    failures integer not null default 0,
    constraint jobs_pkey primary key (kind, subject)
);
comment on table jobs is 'what the background worker takes; narrow, because it is written often and scanned always';
comment on column jobs.kind is 'what to do';
comment on column jobs.subject is 'with what: a token''s id';
comment on column jobs.due_at is 'not before';
comment on column jobs.failures is 'in a row, for the back-off';
create index jobs_due on jobs (due_at);

create table audit_events (
    id bigint generated always as identity constraint audit_events_pkey primary key,
    at timestamptz not null default now(),
    team_id uuid,
    actor text not null,
    recognised_by jsonb not null,
    action text not null,
    outcome text not null constraint audit_events_outcome check (outcome in ('done', 'refused', 'failed')),
    reason text,
    token_id uuid,
    token_name text,
    jfrog_token_id text,
    fingerprint text,
    generation bigint,
    request_id text,
    address text,
    detail jsonb
);
comment on table audit_events is 'one row for each thing done or refused, committed with what it records; only ever inserted';
comment on column audit_events.id is 'in the order of insertion';
comment on column audit_events.at is 'when';
comment on column audit_events.team_id is 'whose; null: the platform''s. No foreign key: it outlives its team';
comment on column audit_events.actor is 'who: key:<team>/<name>, platform-key:<name>, system, nobody';
comment on column audit_events.recognised_by is 'how the actor was recognised';
comment on column audit_events.action is 'what, as noun.verb';
comment on column audit_events.outcome is 'done, refused (by the broker), failed (at JFrog)';
comment on column audit_events.reason is 'precisely why, where it was not done';
comment on column audit_events.token_id is 'the registration';
comment on column audit_events.token_name is 'its name, or the name asked for';
comment on column audit_events.jfrog_token_id is 'JFrog''s id of what was handed out or made';
comment on column audit_events.fingerprint is 'of the access token that was handed out or made';
comment on column audit_events.generation is 'the token''s';
comment on column audit_events.request_id is 'the answer''s x-request-id';
comment on column audit_events.address is 'the caller''s';
comment on column audit_events.detail is 'what else is worth knowing; never a secret';
create index audit_events_team on audit_events (team_id, id);

-- Row-level security, forced: the owner is bound too. What belongs to no team is visible to the platform alone.
alter table teams enable row level security;
alter table teams force row level security;
create policy teams_own on teams using (id = current_team() or is_platform());
alter table data_keys enable row level security;
alter table data_keys force row level security;
create policy data_keys_own on data_keys using (team_id = current_team());
alter table api_keys enable row level security;
alter table api_keys force row level security;
create policy api_keys_own on api_keys using (team_id = current_team() or (team_id is null and is_platform()));
alter table tokens enable row level security;
alter table tokens force row level security;
create policy tokens_own on tokens using (team_id = current_team());
alter table chains enable row level security;
alter table chains force row level security;
create policy chains_own on chains using (team_id = current_team());
alter table attempts enable row level security;
alter table attempts force row level security;
create policy attempts_own on attempts using (team_id = current_team());
alter table audit_events enable row level security;
alter table audit_events force row level security;
create policy audit_events_own on audit_events using (team_id = current_team() or (team_id is null and is_platform()));

grant select on installation to token_broker_app;
grant select, insert on master_keys to token_broker_app;
grant select, insert, update, delete on teams, data_keys, api_keys, tokens, chains, attempts, jobs to token_broker_app;
grant select, insert on audit_events to token_broker_app;

create policy lookup on teams for select to token_broker_lookup using (true);
create policy lookup on data_keys for select to token_broker_lookup using (true);
create policy lookup on api_keys for select to token_broker_lookup using (true);
create policy lookup on tokens for select to token_broker_lookup using (true);
create policy lookup on chains for select to token_broker_lookup using (true);
grant select on teams, data_keys, api_keys, tokens, chains to token_broker_lookup;

-- The narrow doors through that wall.
create function find_api_key(wanted text)
    returns table (id uuid, team_id uuid, team_name text, name text, role text, token_patterns text[],
                   secret_sha256 bytea, expires_at timestamptz, expired boolean, last_used_at timestamptz)
    language sql stable security definer as
$$ select k.id, k.team_id, t.name, k.name, k.role, k.token_patterns, k.secret_sha256, k.expires_at,
          coalesce(k.expires_at <= now(), false), k.last_used_at
   from api_keys k left join teams t on t.id = k.team_id where k.public_id = wanted $$;
comment on function find_api_key is 'the row of a presented key, before its team is known';

create function team_of_token(wanted uuid) returns uuid language sql stable security definer as
$$ select t.team_id from tokens t where t.id = wanted $$;
comment on function team_of_token is 'for the worker, which has only a job''s subject';

create function master_keys_in_use() returns setof text language sql stable security definer as
$$ select distinct d.master_key_id from data_keys d $$;
comment on function master_keys_in_use is 'for the check at start: which master keys must be there';

create function chain_gauges() returns table (state text, chains bigint, soonest_expiry_seconds double precision)
    language sql stable security definer as
$$ select c.state, count(*), extract(epoch from min(c.expires_at) - now())::double precision from chains c group by c.state $$;
comment on function chain_gauges is 'for the metrics';

do $$
declare door text;
begin
    execute format('grant create on schema %I to token_broker_lookup', current_schema());
    foreach door in array array['find_api_key(text)', 'team_of_token(uuid)', 'master_keys_in_use()', 'chain_gauges()'] loop
        -- A definer function must not find its tables through the caller's search path.
        execute format('alter function %s set search_path = %I, pg_temp', door, current_schema());
        execute format('revoke all on function %s from public', door);
        execute format('grant execute on function %s to token_broker_app', door);
        execute format('alter function %s owner to token_broker_lookup', door);
    end loop;
    execute format('revoke create on schema %I from token_broker_lookup', current_schema());
end $$;
