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
