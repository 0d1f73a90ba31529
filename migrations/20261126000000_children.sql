-- Child tokens: short-lived access tokens that jobs were issued with a chain as bearer. Their values are kept nowhere.
alter table tokens
    add column issue_max_expires_in integer not null default 21600,
    add column issue_scopes text[],
    add constraint tokens_issue_max_expires_in check (issue_max_expires_in > 0);
comment on column tokens.issue_max_expires_in is 'longest life of a child token, seconds';
comment on column tokens.issue_scopes is 'what a child token may be given; null: what the registration asks of JFrog';

create table children (
    id uuid constraint children_pkey primary key,
    team_id uuid not null constraint children_team_fkey references teams on delete cascade,
    token_id uuid not null constraint children_token_fkey references tokens on delete cascade,
    state text not null constraint children_state check (state in ('issuing', 'live', 'revoking', 'revoked', 'not-revocable')),
    jfrog_token_id text,
    fingerprint text,
    scope text,
    issued_at timestamptz not null default now(),
    expires_at timestamptz not null,
    actor text not null,
    recognised_by jsonb not null,
    request_id text,
    credential text not null,
    last_error text,
    constraint children_live check (state <> 'live' or jfrog_token_id is not null)
);
comment on table children is 'child tokens that were issued, until a day after they expired';
comment on column children.id is 'in the child''s marker at JFrog: by it a lost answer is found';
comment on column children.team_id is 'whose';
comment on column children.token_id is 'with which token as bearer';
comment on column children.state is 'issuing until JFrog''s answer is here; revoking until JFrog was told';
comment on column children.jfrog_token_id is 'JFrog''s token_id; null: the answer is not here yet, or was lost';
comment on column children.fingerprint is 'first 16 hex digits of the access token''s SHA-256';
comment on column children.scope is 'what JFrog granted';
comment on column children.issued_at is 'when it was asked for: never later than its issue';
comment on column children.expires_at is 'at the latest';
comment on column children.actor is 'who, as the audit writes it';
comment on column children.recognised_by is 'how that was recognised: which job it was';
comment on column children.request_id is 'of the answer that held it';
comment on column children.credential is 'which credential it was issued to: that one may give it back';
comment on column children.last_error is 'why JFrog did not revoke it yet';
create unique index children_of_token on children (token_id, id);
create index children_by_jfrog_id on children (token_id, jfrog_token_id);
create index children_to_end on children (token_id) where state in ('issuing', 'revoking');

alter table children enable row level security;
alter table children force row level security;
create policy children_own on children using (team_id = current_team());
grant select, insert, update, delete on children to token_broker_app;
