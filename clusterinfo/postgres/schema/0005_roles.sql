-- Who may do what: a role that reads, and two functions by which a role that may write but not create keeps the history.

-- A role that may read everything here and change nothing. Roles belong to the server, not to the database: another
-- database may have made it already, or be making it now; and whoever migrates may lack the right to make one.
do $$
begin
    if not exists (select from pg_roles where rolname = 'clusterinfo_reader') then
        begin
            create role clusterinfo_reader nologin;
            -- The planner overrates the short lists in an object and compiles: select * from pods, 10,000 of them, takes
            -- 2.5 s instead of 0.7 s. Holds for whoever logs in as this role; others may set it for themselves.
            alter role clusterinfo_reader set jit = off;
        exception
            when duplicate_object or unique_violation then
                null;  -- made by another database meanwhile
            when insufficient_privilege then
                raise warning 'no right to create the role clusterinfo_reader: have it created, then grant it usage on '
                    'schema % and select on all tables in it', current_schema();
        end;
    end if;
    if exists (select from pg_roles where rolname = 'clusterinfo_reader') then
        execute format('grant usage on schema %I to clusterinfo_reader', current_schema());
        execute format('grant select on all tables in schema %I to clusterinfo_reader', current_schema());
        execute format('grant execute on all functions in schema %I to clusterinfo_reader', current_schema());
        execute format(
            'alter default privileges in schema %I grant select on tables to clusterinfo_reader', current_schema());
        execute format(
            'alter default privileges in schema %I grant execute on functions to clusterinfo_reader', current_schema());
    end if;
end
$$;

-- The months of the history for a role that may write but not create: the two functions run as their owner. They take a
-- month and nothing else, so that they can make or drop no other table. pg_temp last: no temporary table of
-- the caller's is taken for one of ours (manual, "Writing SECURITY DEFINER Functions Safely").
do $$
begin
    execute format($f$
        create function make_history_month(month date) returns void
            language plpgsql security definer set search_path = pg_catalog, %1$I, pg_temp as $body$
        begin
            execute format(
                'create table %1$I.%%I partition of %1$I.resource_history for values from (%%L) to (%%L)',
                'resource_history_' || to_char(month, 'YYYY_MM'),
                to_char(month, 'YYYY-MM-01"T00:00Z"'),
                to_char(month + interval '1 month', 'YYYY-MM-01"T00:00Z"'));
        end
        $body$
    $f$, current_schema());
    execute format($f$
        create function drop_history_month(month date) returns void
            language plpgsql security definer set search_path = pg_catalog, %1$I, pg_temp as $body$
        begin
            execute format('drop table if exists %1$I.%%I', 'resource_history_' || to_char(month, 'YYYY_MM'));
        end
        $body$
    $f$, current_schema());
    revoke execute on function make_history_month(date), drop_history_month(date) from public;
    if exists (select from pg_roles where rolname = 'clusterinfo_reader') then
        revoke execute on function make_history_month(date), drop_history_month(date) from clusterinfo_reader;
    end if;
end
$$;
comment on function make_history_month is 'Make the partition of resource_history for the month that a day lies in.';
comment on function drop_history_month is 'Drop the partition of resource_history for the month that a day lies in.';
