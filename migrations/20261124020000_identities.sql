-- CI identities: which jobs may use which tokens of a team, sessions for jobs that outlive their own token, and JWTs that may be
-- used once.
create table trust_rules (
    id uuid constraint trust_rules_pkey primary key,
    team_id uuid not null constraint trust_rules_team_fkey references teams on delete cascade,
    name text not null,
    issuer text not null,
    claims jsonb not null,
    whole_organisation boolean not null,
    role text not null constraint trust_rules_role check (role in ('ci', 'viewer', 'admin')),
    token_patterns text[] not null,
    session_max integer not null constraint trust_rules_session_max check (session_max between 0 and 86400),
    single_use boolean not null,
    pins jsonb not null default '{}',
    created_at timestamptz not null default now(),
    created_by text not null,
    last_used_at timestamptz,
    constraint trust_rules_name_key unique (team_id, name)
);
comment on table trust_rules is 'which jobs of which issuer are let in as what';
comment on column trust_rules.id is 'another one after each change: sessions that came from what the rule was end with it';
comment on column trust_rules.team_id is 'whose';
comment on column trust_rules.name is 'unique in its team';
comment on column trust_rules.issuer is 'the iss claim, to the byte';
comment on column trust_rules.claims is 'claim to pattern: what a job''s token must say';
comment on column trust_rules.whole_organisation is 'meant for every repository or project of an owner: said, not slipped in';
comment on column trust_rules.role is 'what such a job may do';
comment on column trust_rules.token_patterns is 'with which tokens: names and * globs';
comment on column trust_rules.session_max is 'longest session, seconds; 0: none';
comment on column trust_rules.single_use is 'each JWT is good for one call';
comment on column trust_rules.pins is 'ids that never change, learnt at the first use: a repository made anew under the same name has others';
comment on column trust_rules.created_at is 'when';
comment on column trust_rules.created_by is 'by whom, as the audit writes it; of the last change';
comment on column trust_rules.last_used_at is 'to the minute';
create index trust_rules_issuer on trust_rules (issuer);

create table sessions (
    id uuid constraint sessions_pkey primary key,
    team_id uuid not null constraint sessions_team_fkey references teams on delete cascade,
    public_id text not null constraint sessions_public_id_key unique,
    secret_sha256 bytea not null constraint sessions_sha256 check (length(secret_sha256) = 32),
    actor text not null,
    recognised_by jsonb not null,
    rule_ids uuid[] not null constraint sessions_rules check (cardinality(rule_ids) > 0),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
comment on table sessions is 'credentials of jobs that outlive their own token; good for what their rules give, as long as these stand';
comment on column sessions.id is 'internal';
comment on column sessions.team_id is 'whose';
comment on column sessions.public_id is 'the part of the credential that finds this row';
comment on column sessions.secret_sha256 is 'SHA-256 of the whole credential, which is kept nowhere';
comment on column sessions.actor is 'the identity that began it, as the audit writes it';
comment on column sessions.recognised_by is 'how that identity was recognised';
comment on column sessions.rule_ids is 'where it came from: gone or changed, the session ends';
comment on column sessions.created_at is 'when';
comment on column sessions.expires_at is 'at most a day later';
create index sessions_expiry on sessions (team_id, expires_at);

create table used_jtis (
    issuer text not null,
    jti_sha256 bytea not null,
    until timestamptz not null,
    constraint used_jtis_pkey primary key (issuer, jti_sha256)
);
comment on table used_jtis is 'JWTs that were used under a rule that lets each in once';
comment on column used_jtis.issuer is 'the iss claim';
comment on column used_jtis.jti_sha256 is 'of the jti claim';
comment on column used_jtis.until is 'when the JWT has ended by any clock: the row may go';
create index used_jtis_until on used_jtis (until);

alter table trust_rules enable row level security;
alter table trust_rules force row level security;
create policy trust_rules_own on trust_rules using (team_id = current_team());
alter table sessions enable row level security;
alter table sessions force row level security;
create policy sessions_own on sessions using (team_id = current_team());
grant select, insert, update, delete on trust_rules, sessions, used_jtis to token_broker_app;
create policy lookup on trust_rules for select to token_broker_lookup using (true);
create policy lookup on sessions for select to token_broker_lookup using (true);
grant select on trust_rules, sessions to token_broker_lookup;

create function trust_rules_of(of_issuer text)
    returns table (id uuid, team_id uuid, team_name text, name text, claims jsonb, whole_organisation boolean, role text,
                   token_patterns text[], session_max integer, single_use boolean, pins jsonb)
    language sql stable security definer as
$$ select r.id, r.team_id, t.name, r.name, r.claims, r.whole_organisation, r.role, r.token_patterns, r.session_max, r.single_use, r.pins
   from trust_rules r join teams t on t.id = r.team_id where r.issuer = of_issuer $$;
comment on function trust_rules_of is 'every team''s rules for an issuer: whose job it is, they alone say';

create function find_session(wanted text)
    returns table (id uuid, team_id uuid, team_name text, secret_sha256 bytea, actor text, recognised_by jsonb, expires_at timestamptz,
                   expired boolean, grants jsonb)
    language sql stable security definer as
$$ select s.id, s.team_id, t.name, s.secret_sha256, s.actor, s.recognised_by, s.expires_at,
          s.expires_at <= now() or given.rules < cardinality(s.rule_ids), given.grants
   from sessions s join teams t on t.id = s.team_id,
        lateral (select count(*) as rules, jsonb_agg(jsonb_build_object('role', r.role, 'tokens', r.token_patterns)) as grants
                 from trust_rules r where r.id = any (s.rule_ids)) given
   where s.public_id = wanted $$;
comment on function find_session is 'the row of a presented session credential, before its team is known; ended too when a rule of it changed';

do $$
declare door text;
begin
    execute format('grant create on schema %I to token_broker_lookup', current_schema());
    foreach door in array array['trust_rules_of(text)', 'find_session(text)'] loop
        execute format('alter function %s set search_path = %I, pg_temp', door, current_schema());
        execute format('revoke all on function %s from public', door);
        execute format('grant execute on function %s to token_broker_app', door);
        execute format('alter function %s owner to token_broker_lookup', door);
    end loop;
    execute format('revoke create on schema %I from token_broker_lookup', current_schema());
end $$;
