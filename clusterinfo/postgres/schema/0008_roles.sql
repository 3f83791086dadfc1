-- The months of the history for a role that may write but not create: it calls two functions, which run as their owner.
-- They take a month and nothing else, so that they can make or drop no other table. pg_temp last: no temporary table of
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
