-- What the views are made of: functions that read a value out of a Kubernetes object and never raise.
-- A value that is not what the API promises (a quantity "lots", a list that is a string) reads as NULL or as nothing, so
-- that one odd object cannot make a view fail for all the others. The operators ->, ->>, #> and #>> are of that kind
-- already; these functions guard what is not: casts, jsonb_array_elements, jsonb_object_keys, jsonpath.
--
-- Functions in SQL have `begin atomic` bodies: their names are bound here, whatever the caller's search_path says. The
-- planner puts those of one expression, and those that return sets, in line. Those in plpgsql use pg_catalog only, which
-- search_path has in front unless the caller says otherwise: SET would cost a function as much as its work.

create function quantity(value text) returns numeric
    language plpgsql immutable strict parallel safe cost 10 as $$
declare
    unit text := ltrim(value, '0123456789');
begin
    -- Nearly all are a whole number and one of these, which costs a quarter of what the pattern does.
    if unit in ('', 'm', 'Ki', 'Mi', 'Gi') and length(value) - length(unit) between 1 and 18 then
        return case unit when '' then value::numeric
            when 'm' then trim_scale(left(value, -1)::numeric * 0.001)
            else left(value, -2)::numeric * case unit when 'Ki' then 1024 when 'Mi' then 1048576 else 1073741824 end end;
    end if;
    if value !~ '^[+-]?([0-9]{1,40}([.][0-9]{0,40})?|[.][0-9]{1,40})([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$' then
        return null;
    end if;
    if right(value, 1) ~ '[0-9.]' then
        return value::numeric;
    end if;
    return trim_scale(rtrim(value, 'numkKMGTPEi')::numeric * case ltrim(value, '+-.0123456789')
        when 'n' then 0.000000001 when 'u' then 0.000001 when 'm' then 0.001
        when 'k' then 1e3 when 'M' then 1e6 when 'G' then 1e9 when 'T' then 1e12 when 'P' then 1e15 when 'E' then 1e18
        when 'Ki' then 1024 when 'Mi' then 1048576 when 'Gi' then 1073741824 when 'Ti' then 1099511627776
        when 'Pi' then 1125899906842624 when 'Ei' then 1152921504606846976
    end);
end
$$;
comment on function quantity is
    'A Kubernetes quantity in its base unit: 250m is 0.25, 1Ki is 1024, 1e3 is 1000; NULL for what is none.';

create function whole_bytes(amount numeric) returns bigint
    language plpgsql immutable strict parallel safe cost 10 as $$
begin
    if amount between -9223372036854775808 and 9223372036854775807 then
        return ceil(amount);
    end if;
    return null;
end
$$;
comment on function whole_bytes is 'Rounded up, as Kubernetes does; NULL beyond 64 bits.';

create function as_integer(value text) returns integer
    immutable parallel safe
begin atomic
    select case
        when value ~ '^-?[0-9]{1,9}$' then value::integer
        when value ~ '^-?[0-9]{10}$' then
            case when value::bigint between -2147483648 and 2147483647 then value::integer end
    end;
end;
comment on function as_integer is 'A 32-bit integer; NULL for what is none.';

create function as_boolean(value text) returns boolean
    immutable parallel safe
begin atomic
    select case value when 'true' then true when 'false' then false end;
end;
comment on function as_boolean is 'true or false as JSON spells them; NULL for anything else.';

create function as_map(part jsonb) returns jsonb
    immutable parallel safe
begin atomic
    select case when jsonb_typeof(part) = 'object' then part else '{}' end;
end;
comment on function as_map is 'A map; an empty one for what is absent, null or none.';

create function first_text(part jsonb, path jsonpath) returns text
    immutable parallel safe
begin atomic
    select jsonb_path_query_first(part, path, '{}', true) #>> '{}';
end;
comment on function first_text is 'The first thing a path finds, as text; NULL if it finds nothing.';

create function elements(part jsonb, field text) returns table (place bigint, element jsonb)
    immutable parallel safe
begin atomic
    select e.place, e.element
    from jsonb_array_elements(case jsonb_typeof(part -> field) when 'array' then part -> field end)
        with ordinality as e (element, place);
end;
comment on function elements is 'The elements of the list in a field, counted from 1; nothing if it holds no list.';

create function sorted_keys(part jsonb) returns setof text
    immutable parallel safe
begin atomic
    select k.key collate "C"
    from jsonb_object_keys(case jsonb_typeof(part) when 'object' then part end) as k (key)
    order by 1;
end;
comment on function sorted_keys is 'The keys of an object, in byte order; nothing if it is none.';

-- What follows is about pods.

create function is_sidecar(container jsonb) returns boolean
    immutable parallel safe
begin atomic
    select coalesce(container ->> 'restartPolicy' = 'Always', false);
end;
comment on function is_sidecar is 'Of an init container: it goes on running beside the others.';

create function resize_is_infeasible(status jsonb) returns boolean
    immutable parallel safe
begin atomic
    select coalesce(
        first_text(status, '$.conditions[*] ? (@.type == "PodResizePending").reason') = 'Infeasible'
            or status ->> 'resize' = 'Infeasible',
        false);
end;
comment on function resize_is_infeasible is
    'Of a pod: its node cannot give what the spec asks for now. Kubernetes 1.27 to 1.32 say so in status.resize.';

-- What a container asks for, what it has and what it was promised are three things while it is resized in place. Those who
-- reckon take the most; what can never be given does not count. Mostly all three are one text, and that is all to look at.
create function container_amount(container jsonb, status jsonb, field text, sort text, resource_name text)
    returns table (amount numeric)
    immutable parallel safe
begin atomic
    select case
        when a.told is not true or a.has is not distinct from a.asked and coalesce(a.promised = a.asked, a.promised is null)
            then quantity(a.asked)
        else greatest(
            case when not resize_is_infeasible(status) then quantity(a.asked) end,
            quantity(a.has),
            quantity(a.promised))
    end
    from (
        select container #>> array['resources', sort, resource_name] as asked, given.told, given.has, given.promised
        from (select) as always
        left join lateral (
            select
                jsonb_typeof(e.element -> 'resources') = 'object' as told,
                e.element #>> array['resources', sort, resource_name] as has,
                case sort when 'requests' then e.element #>> array['allocatedResources', resource_name] end as promised
            from elements(status, field) e
            where e.element -> 'name' = container -> 'name'
            limit 1
        ) as given on true
        offset 0
    ) as a;
end;
comment on function container_amount is
    'What a container of a pod requests (sort: requests) or may use (limits); field: the list in the pod''s status it is told in.';

create function whole_pod_amount(spec jsonb, status jsonb, overhead numeric, sort text, resource_name text)
    returns table (amount numeric)
    immutable parallel safe
begin atomic
    select greatest(
        case when not resize_is_infeasible(status) or not (status ? 'resources' or status ? 'allocatedResources')
            then a.asked end,
        case when a.given is not null then greatest(a.given - coalesce(overhead, 0), 0) end,
        case when a.promised is not null then greatest(a.promised - coalesce(overhead, 0), 0) end)
    from (
        select
            quantity(spec #>> array['resources', sort, resource_name]) as asked,
            quantity(status #>> array['resources', sort, resource_name]) as given,
            case when sort = 'requests' then quantity(status #>> array['allocatedResources', resource_name]) end
                as promised
        offset 0
    ) as a
    where spec #> array['resources', sort] <> '{}';
end;
comment on function whole_pod_amount is
    'What is given for the pod as a whole; in its status the overhead is in it. No row: nothing is given so.';

-- Source: PodRequests and PodLimits of k8s.io/component-helpers/resource, with UseStatusResources as the scheduler sets it.
-- Containers and sidecars run together; an init container runs alone but for the sidecars before it; what is given for the
-- pod as a whole beats the sum; the overhead of the runtime class comes on top (of a limit only where there is one).
create function pod_amount(spec jsonb, status jsonb, sort text, resource_name text) returns setof numeric
    immutable parallel safe
begin atomic
    select trim_scale(case when sort = 'requests' or total.amount <> 0 or overhead.amount is null
        then case when total.amount is null then overhead.amount else total.amount + coalesce(overhead.amount, 0) end
        else total.amount end)
    from (select quantity(spec #>> array['overhead', resource_name]) as amount offset 0) as overhead
    cross join lateral (
        select coalesce(
            case when spec ? 'resources' then (
                select p.amount from whole_pod_amount(spec, status, overhead.amount, sort, resource_name) p) end,
            greatest(running.amount + coalesce(init.sidecars, 0), init.sidecars, init.peak)) as amount
        from (
            select sum(a.amount) as amount
            from elements(spec, 'containers') c
            cross join lateral container_amount(c.element, status, 'containerStatuses', sort, resource_name) a
        ) as running
        left join lateral (
            select max(i.sidecars) as sidecars, max(i.peak) as peak
            from (
                select
                    sum(c.amount) filter (where c.sidecar) over upto as sidecars,
                    coalesce(sum(c.amount) filter (where c.sidecar) over upto, 0)
                        + case when not c.sidecar then c.amount end as peak
                from (
                    select e.place, is_sidecar(e.element) as sidecar, a.amount
                    from elements(spec, 'initContainers') e
                    cross join lateral container_amount(
                        e.element, case when is_sidecar(e.element) then status end, 'initContainerStatuses',
                        sort, resource_name) a
                ) as c
                window upto as (order by c.place rows unbounded preceding)
            ) as i
        ) as init on spec ? 'initContainers'
        offset 0
    ) as total;
end;
comment on function pod_amount is
    'What the scheduler reckons a pod requests (sort: requests) or may use (limits) of cpu, memory...; NULL: nothing set.';

create function container_status(container jsonb, place bigint, status jsonb, field text) returns table (element jsonb)
    immutable parallel safe
begin atomic
    select case
        when status #> array[field, (place - 1)::text, 'name'] = container -> 'name'
            then status #> array[field, (place - 1)::text]
        else (select e.element from elements(status, field) e where e.element -> 'name' = container -> 'name' limit 1)
    end;
end;
comment on function container_status is
    'What a pod''s status says of a container, mostly at the place that it has in the spec; NULL: nothing.';

-- All four at once, since most pods are a sum: the containers are taken apart once, and where a status says what the spec does
-- nothing else is looked at. What is not wanted of it is not reckoned.
create function pod_amounts(spec jsonb, status jsonb) returns table (
    cpu_request numeric, cpu_limit numeric, memory_request numeric, memory_limit numeric)
    immutable parallel safe
begin atomic
    select
        case when p.is_more then (select n from pod_amount(spec, status, 'requests', 'cpu') as n)
            else trim_scale(t.cpu_request) end,
        case when p.is_more then (select n from pod_amount(spec, status, 'limits', 'cpu') as n)
            else trim_scale(t.cpu_limit) end,
        case when p.is_more then (select n from pod_amount(spec, status, 'requests', 'memory') as n)
            else trim_scale(t.memory_request) end,
        case when p.is_more then (select n from pod_amount(spec, status, 'limits', 'memory') as n)
            else trim_scale(t.memory_limit) end
    from (select spec ?| array['resources', 'overhead', 'initContainers'] as is_more having true) as p
    left join lateral (
        select
            sum(case when c.is_as_asked then quantity(c.element #>> '{resources,requests,cpu}')
                else (select a.amount from container_amount(c.element, status, 'containerStatuses', 'requests', 'cpu') a) end)
                as cpu_request,
            sum(case when c.is_as_asked then quantity(c.element #>> '{resources,limits,cpu}')
                else (select a.amount from container_amount(c.element, status, 'containerStatuses', 'limits', 'cpu') a) end)
                as cpu_limit,
            sum(case when c.is_as_asked then quantity(c.element #>> '{resources,requests,memory}')
                else (select a.amount from container_amount(c.element, status, 'containerStatuses', 'requests', 'memory') a) end)
                as memory_request,
            sum(case when c.is_as_asked then quantity(c.element #>> '{resources,limits,memory}')
                else (select a.amount from container_amount(c.element, status, 'containerStatuses', 'limits', 'memory') a) end)
                as memory_limit
        from (
            select e.element,
                coalesce(jsonb_typeof(given.resources) <> 'object', true)
                    or coalesce(given.resources = e.element -> 'resources' and (
                        given.promised is null or given.promised = e.element #> '{resources,requests}'), false) as is_as_asked
            from elements(case when not p.is_more then spec end, 'containers') e
            left join lateral (
                select s.element -> 'resources' as resources, s.element -> 'allocatedResources' as promised
                from container_status(e.element, e.place, status, 'containerStatuses') s
                offset 0
            ) as given on true
            offset 0
        ) as c
    ) as t on true;
end;
comment on function pod_amounts is 'pod_amount of what the view pods shows.';

-- Source: printPod of kubectl's printers (pkg/printers/internalversion/printers.go), for this function and the next two.
create function pod_init(spec jsonb, status jsonb) returns table (reason text, restarts bigint)
    immutable parallel safe
begin atomic
    select i.reason, i.restarts
    from (
        select
            s.place,
            sum(as_integer(s.element ->> 'restartCount')) over (order by s.place rows unbounded preceding) as restarts,
            case
                when s.element #>> '{state,terminated,exitCode}' = '0' then null
                when s.element ->> 'started' = 'true' and exists (
                    select from elements(spec, 'initContainers') c
                    where c.element -> 'name' = s.element -> 'name' and is_sidecar(c.element)) then null
                when s.element #> '{state,terminated}' is not null then 'Init:' || coalesce(
                    nullif(s.element #>> '{state,terminated,reason}', ''),
                    'Signal:' || nullif(s.element #>> '{state,terminated,signal}', '0'),
                    'ExitCode:' || coalesce(s.element #>> '{state,terminated,exitCode}', '0'))
                when s.element #>> '{state,waiting,reason}' not in ('', 'PodInitializing') then
                    'Init:' || (s.element #>> '{state,waiting,reason}')
                else format('Init:%s/%s', s.place - 1, (select count(*) from elements(spec, 'initContainers')))
            end as reason
        from elements(status, 'initContainerStatuses') s
    ) as i
    where i.reason is not null
    order by i.place
    limit 1;
end;
comment on function pod_init is
    'The first init container that has not done its part: what STATUS says of it, restarts so far; no row: all have.';

create function pod_status(spec jsonb, status jsonb) returns setof text
    immutable parallel safe
begin atomic
    select case
        when s.reason <> 'Completed' or s.reason is null then s.reason
        when not exists (
            select from elements(status, 'containerStatuses') c
            where c.element ->> 'ready' = 'true' and c.element #> '{state,running}' is not null) then s.reason
        when first_text(status, '$.conditions[*] ? (@.type == "Ready").status') = 'True' then 'Running'
        else 'NotReady'
    end
    from (
        select coalesce(
            case when init.reason is null
                    or first_text(status, '$.conditions[*] ? (@.type == "Initialized").status') = 'True' then (
                select coalesce(
                    nullif(c.element #>> '{state,waiting,reason}', ''),
                    nullif(c.element #>> '{state,terminated,reason}', ''),
                    'Signal:' || nullif(c.element #>> '{state,terminated,signal}', '0'),
                    'ExitCode:' || coalesce(c.element #>> '{state,terminated,exitCode}', '0'))
                from elements(status, 'containerStatuses') c
                where nullif(c.element #>> '{state,waiting,reason}', '') is not null
                    or c.element #> '{state,terminated}' is not null
                order by c.place
                limit 1)
            end,
            init.reason,
            first_text(status,
                '$.conditions[*] ? (@.type == "PodScheduled" && @.reason == "SchedulingGated").reason'),
            nullif(status ->> 'reason', ''),
            status ->> 'phase') as reason
        from (select) as always
        left join lateral (select i.reason from pod_init(spec, status) i) as init on true
        offset 0
    ) as s;
end;
comment on function pod_status is 'What kubectl shows as STATUS of a pod that is not being deleted.';

create function pod_restarts(spec jsonb, status jsonb) returns setof bigint
    immutable parallel safe
begin atomic
    select case
        when init.restarts is not null
                and first_text(status, '$.conditions[*] ? (@.type == "Initialized").status') is distinct from 'True'
            then init.restarts
        else (
            select coalesce(sum(as_integer(c.element ->> 'restartCount')), 0)
            from elements(status, 'containerStatuses') c
        ) + case when status ? 'initContainerStatuses' then (
            select coalesce(sum(as_integer(s.element ->> 'restartCount')), 0)
            from elements(status, 'initContainerStatuses') s
            where exists (
                select from elements(spec, 'initContainers') c
                where c.element -> 'name' = s.element -> 'name' and is_sidecar(c.element))
        ) else 0 end
    end
    from (select) as always
    left join lateral (select coalesce(i.restarts, 0) as restarts from pod_init(spec, status) i) as init on true;
end;
comment on function pod_restarts is
    'What kubectl shows as RESTARTS: of init containers while they run, then of containers and sidecars.';
