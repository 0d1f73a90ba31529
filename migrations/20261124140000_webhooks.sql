-- Webhooks: a team's own server is told when something becomes of a token. Notices are written by triggers, in the transaction that
-- they are about: no state changes untold, whichever statement changes it; and they are told at least once.
create table webhooks (
    id uuid constraint webhooks_pkey primary key,
    team_id uuid not null constraint webhooks_team_fkey references teams on delete cascade,
    name text not null,
    origin text not null,
    target bytea not null,
    events text[] not null constraint webhooks_events check (cardinality(events) > 0),
    created_at timestamptz not null default now(),
    created_by text not null,
    told_at timestamptz,
    last_error_at timestamptz,
    last_error text,
    constraint webhooks_name_key unique (team_id, name)
);
comment on table webhooks is 'servers that a team wants told';
comment on column webhooks.id is 'in the associated data of its sealed target';
comment on column webhooks.team_id is 'whose';
comment on column webhooks.name is 'unique in its team';
comment on column webhooks.origin is 'scheme, host and port of the URL: its path may be a secret';
comment on column webhooks.target is 'sealed: the URL, and the secret that signs what is sent there';
comment on column webhooks.events is 'what it is told';
comment on column webhooks.created_at is 'when';
comment on column webhooks.created_by is 'by whom, as the audit writes it';
comment on column webhooks.told_at is 'when it last took a notice';
comment on column webhooks.last_error_at is 'when it last did not; null again after a success';
comment on column webhooks.last_error is 'why not, for admins';

create table webhook_notices (
    id uuid constraint webhook_notices_pkey primary key,
    team_id uuid not null constraint webhook_notices_team_fkey references teams on delete cascade,
    webhook_id uuid not null constraint webhook_notices_webhook_fkey references webhooks on delete cascade,
    event text not null,
    data jsonb not null,
    at timestamptz not null default now()
);
comment on table webhook_notices is 'what a webhook is still to be told; gone once it took it';
comment on column webhook_notices.id is 'the same at each try: who is told twice knows it by this';
comment on column webhook_notices.team_id is 'whose';
comment on column webhook_notices.webhook_id is 'who is told';
comment on column webhook_notices.event is 'what happened';
comment on column webhook_notices.data is 'to what; never a secret';
comment on column webhook_notices.at is 'when';
create index webhook_notices_webhook on webhook_notices (webhook_id);

alter table tokens add column deadline_told bigint not null default 0;
comment on column tokens.deadline_told is 'the generation that webhooks were told is close to its expiry: once each';

alter table webhooks enable row level security;
alter table webhooks force row level security;
create policy webhooks_own on webhooks using (team_id = current_team());
alter table webhook_notices enable row level security;
alter table webhook_notices force row level security;
create policy webhook_notices_own on webhook_notices using (team_id = current_team());
grant select, insert, update, delete on webhooks, webhook_notices to token_broker_app;
create policy lookup on webhooks for select to token_broker_lookup using (true);
create policy lookup on webhook_notices for select to token_broker_lookup using (true);
grant select on webhooks, webhook_notices to token_broker_lookup;

create function tell_webhooks(of_team uuid, what text, about jsonb) returns void language sql volatile as
$$ with told as (
       insert into webhook_notices (id, team_id, webhook_id, event, data)
       select gen_random_uuid(), w.team_id, w.id, what, about from webhooks w where w.team_id = of_team and what = any (w.events)
       returning id)
   insert into jobs (kind, subject, due_at) select 'webhook', told.id, now() from told $$;
comment on function tell_webhooks is 'writes a notice for each webhook of the team that wants it; the team is the transaction''s';

create function tell_of_chain() returns trigger language plpgsql as
$$ begin
    perform tell_webhooks(t.team_id, case new.state when 'uncertain' then 'token.uncertain' else 'token.healed' end,
                          jsonb_build_object('token', t.name, 'chain', new.letter, 'generation', t.generation))
    from tokens t where t.id = new.token_id and t.state = 'registered';
    return null;
end $$;
comment on function tell_of_chain is 'a chain is in doubt, or works again; not while its registration is being made';
create trigger tell_of_chain after update of state on chains for each row
    when (old.state <> new.state and new.state in ('uncertain', 'active') and old.generation > 0) execute function tell_of_chain();

create function tell_of_token() returns trigger language plpgsql as
$$ begin
    if new.deadline_told <> old.deadline_told then
        perform tell_webhooks(new.team_id, 'token.deadline', jsonb_build_object('token', new.name, 'generation', new.generation,
            'expires_at', (select max(c.expires_at) from chains c where c.token_id = new.id and c.state = 'active')));
    else
        perform tell_webhooks(new.team_id, 'token.lost',
                              jsonb_build_object('token', new.name, 'generation', new.generation, 'reason', new.last_error_kind));
    end if;
    return null;
end $$;
comment on function tell_of_token is 'a token needs a person, now or soon';
create trigger tell_of_token after update of last_error_kind, deadline_told on tokens for each row
    when (old.deadline_told <> new.deadline_told
          or new.last_error_kind in ('lost', 'user-rejected') and old.last_error_kind is distinct from new.last_error_kind)
    execute function tell_of_token();

create function webhook_notice(wanted uuid)
    returns table (id uuid, team_id uuid, team_name text, webhook_id uuid, event text, data jsonb, at timestamptz, target bytea,
                   overdue boolean, now timestamptz)
    language sql stable security definer as
$$ select n.id, n.team_id, t.name, n.webhook_id, n.event, n.data, n.at, w.target, n.at < now() - interval '1 day', now()
   from webhook_notices n join webhooks w on w.id = n.webhook_id join teams t on t.id = n.team_id where n.id = wanted $$;
comment on function webhook_notice is 'for the worker, which has only a job''s subject';

do $$
begin
    execute format('grant create on schema %I to token_broker_lookup', current_schema());
    execute format('alter function webhook_notice(uuid) set search_path = %I, pg_temp', current_schema());
    revoke all on function webhook_notice(uuid) from public;
    grant execute on function webhook_notice(uuid) to token_broker_app;
    alter function webhook_notice(uuid) owner to token_broker_lookup;
    execute format('revoke create on schema %I from token_broker_lookup', current_schema());
end $$;
