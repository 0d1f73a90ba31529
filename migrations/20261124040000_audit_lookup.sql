-- Reading the audit: by time, by what was handed out, by request.
drop index audit_events_team;
create index audit_events_team on audit_events (team_id, at, id);
create index audit_events_fingerprint on audit_events (fingerprint, id) where fingerprint is not null;
create index audit_events_request on audit_events (request_id, team_id) where request_id is not null;

create policy lookup on audit_events for select to token_broker_lookup using (true);
grant select on audit_events to token_broker_lookup;

create function audit_of_fingerprint(wanted text, after_id bigint, page integer)
    returns table (id bigint, at timestamptz, team text, actor text, recognised_by jsonb, action text, outcome text, reason text,
                   token_name text, jfrog_token_id text, fingerprint text, generation bigint, request_id text, address text, detail jsonb)
    language sql stable security definer as
$$ select a.id, a.at, coalesce(t.name, a.team_id::text), a.actor, a.recognised_by, a.action, a.outcome, a.reason, a.token_name,
          a.jfrog_token_id, a.fingerprint, a.generation, a.request_id, a.address, a.detail
   from audit_events a left join teams t on t.id = a.team_id
   where a.fingerprint = wanted and a.id > after_id order by a.id limit page $$;
comment on function audit_of_fingerprint is 'for the operator who holds a leaked token: who was handed it, in whichever team; a team that was deleted is its id';

do $$
declare door text := 'audit_of_fingerprint(text, bigint, integer)';
begin
    execute format('grant create on schema %I to token_broker_lookup', current_schema());
    execute format('alter function %s set search_path = %I, pg_temp', door, current_schema());
    execute format('revoke all on function %s from public', door);
    execute format('grant execute on function %s to token_broker_app', door);
    execute format('alter function %s owner to token_broker_lookup', door);
    execute format('revoke create on schema %I from token_broker_lookup', current_schema());
end $$;
