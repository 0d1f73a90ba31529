-- Who may do what is remembered by every replica for as long as it would have heard of a change. A new key or session is not told
-- of: nobody has looked it up before.
create function tell_of_access() returns trigger language plpgsql as
$$ begin
    perform pg_notify('token_broker', 'access');
    return null;
end $$;
comment on function tell_of_access is 'keys, sessions or trust rules have changed: nothing that was remembered of them holds any more';

-- Not of a use, which is noted each minute.
create trigger tell_of_access after delete or update of role, token_patterns, secret_sha256, expires_at
    on api_keys for each statement execute function tell_of_access();
-- A changed rule has another id. A new one counts for the next job that an earlier one let in as well.
create trigger tell_of_access after insert or delete or update of id, pins
    on trust_rules for each statement execute function tell_of_access();

create function tell_of_ended_sessions() returns trigger language plpgsql as
$$ begin
    if exists (select 1 from gone where expires_at > now()) then
        perform pg_notify('token_broker', 'access');
    end if;
    return null;
end $$;
comment on function tell_of_ended_sessions is 'sessions ended before their time; those whose time is over are forgotten without a word';
create trigger tell_of_access after delete on sessions
    referencing old table as gone for each statement execute function tell_of_ended_sessions();
create trigger tell_of_change after update on sessions for each statement execute function tell_of_access();
