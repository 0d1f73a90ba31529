-- Errands: what the background worker does besides keeping tokens alive. They have places of their own there.
alter table jobs drop constraint jobs_kind,
    add constraint jobs_kind check (kind in ('settle', 'sweep', 'keep-alive', 'revoke', 'webhook', 'reseal', 'close-audit'));
comment on column jobs.subject is 'with what: a token''s id for settle, sweep and keep-alive; else the id that the kind says, or nil';
