-- Lockdowns: nothing of a token, or of a whole team, is handed out until an admin ends it. Keys, rules and sessions stay as they are.
create table lockdowns (
    id uuid constraint lockdowns_pkey primary key,
    team_id uuid not null constraint lockdowns_team_fkey references teams on delete cascade,
    token_id uuid constraint lockdowns_token_fkey references tokens on delete cascade,
    reason text not null,
    renew boolean not null,
    by_platform boolean not null,
    created_at timestamptz not null default now(),
    created_by text not null,
    constraint lockdowns_token_key unique nulls not distinct (team_id, token_id)
);
comment on table lockdowns is 'what is handed out to nobody, whatever their grants say';
comment on column lockdowns.id is 'internal';
comment on column lockdowns.team_id is 'whose';
comment on column lockdowns.token_id is 'which token; null: every one of the team, also those registered later';
comment on column lockdowns.reason is 'for people';
comment on column lockdowns.renew is 'the chains were to be made anew, and what was handed out before revoked';
comment on column lockdowns.by_platform is 'by a platform admin: only such a one ends it';
comment on column lockdowns.created_at is 'when';
comment on column lockdowns.created_by is 'by whom, as the audit writes it';

alter table lockdowns enable row level security;
alter table lockdowns force row level security;
create policy lockdowns_own on lockdowns using (team_id = current_team());
grant select, insert, update, delete on lockdowns to token_broker_app;

create function locked_down(of_team uuid, of_token uuid) returns boolean language sql stable as
$$ select exists (select 1 from lockdowns l where l.team_id = of_team and coalesce(l.token_id, of_token) = of_token) $$;
comment on function locked_down is 'whether the token is not handed out, by a lockdown of its own or of its team; the team is the transaction''s';

create function tell_of_lockdown() returns trigger language plpgsql as
$$ begin
    perform tell_webhooks(new.team_id, case when new.token_id is null then 'team.locked-down' else 'token.locked-down' end,
                          jsonb_build_object('token', (select t.name from tokens t where t.id = new.token_id), 'reason', new.reason,
                                             'by', new.created_by));
    return null;
end $$;
comment on function tell_of_lockdown is 'a lockdown began';
create trigger tell_of_lockdown after insert on lockdowns for each row execute function tell_of_lockdown();

alter table jobs drop constraint jobs_kind,
    add constraint jobs_kind check (kind in ('settle', 'sweep', 'keep-alive', 'revoke', 'webhook', 'reseal', 'close-audit', 'renew'));
