-- The views: live objects, named as kubectl names the kinds, typed. Their columns are a promise to those who query them.
-- A column may be added at the end of a view; none is renamed, retyped or taken away.
--
-- An object whose body could not be stored (state: oversize, identity) shows with its identity, every other column NULL.
-- In an object that was stored, a list or map that is absent reads as an empty one, an absent count as 0, as in kubectl.

-- A body is detoasted once, for all columns together, and not at all when only identities are asked for. `#> '{}'` hands
-- back the whole value, in memory; HAVING makes the subquery one that the planner can neither merge into the query
-- (that would detoast once a column) nor fail to see as exactly one row (so it leaves the join out when no column of the
-- body is wanted). Six columns of 10,000 pods of 6.6 kB take 87 ms, with body -> ... for each column 245 ms; counting
-- them takes 2 ms (PostgreSQL 15, lz4). Likewise spec and status, which would be copied once a column.
create function live(group_name text, resource_name text) returns table (
    cluster text, namespace text, name text, uid text, created_at timestamptz, labels jsonb, owner_kind text, owner_name text,
    stored boolean, object jsonb, metadata jsonb, spec jsonb, status jsonb)
    stable parallel safe
begin atomic
    select c.label, r.namespace, r.name, r.uid, r.created_at, r.labels, r.owner_kind, r.owner_name,
        r.fidelity >= 2, b.object, b.object -> 'metadata', p.spec, p.status
    from unit u
    join cluster c on c.id = u.cluster_id
    join resource r on r.unit_id = u.id
    left join lateral (select case when r.fidelity >= 2 then r.body #> '{}' end as object having true) as b on true
    left join lateral (select b.object -> 'spec' as spec, b.object -> 'status' as status having true) as p on true
    where u.api_group = group_name and u.resource = resource_name and not r.deleted;
end;
comment on function live is 'The live objects of a kind, taken apart: what the views of the kinds are made of.';

create view resources as
select
    c.label as cluster,
    u.api_group,
    u.api_version,
    u.resource,
    u.kind,
    r.namespace,
    r.name,
    r.uid,
    r.resource_version,
    r.created_at,
    r.first_observed_at,
    greatest(r.valid_from, r.last_observed_at, (
        select max(l.seen_at) from list_seen l where l.ids @> r.id)) as last_observed_at,
    r.manager as changed_by,
    r.managed_at as changed_at,
    case r.fidelity when 3 then 'whole' when 2 then 'sanitised' when 1 then 'oversize' else 'identity' end as state,
    r.labels,
    case when r.fidelity >= 2 then as_map(b.object #> '{metadata,annotations}') end as annotations,
    r.owner_kind,
    r.owner_name,
    r.owner_uid,
    b.object
from resource r
join unit u on u.id = r.unit_id
join cluster c on c.id = u.cluster_id
left join lateral (select case when r.fidelity >= 2 then r.body #> '{}' end as object having true) as b on true
where not r.deleted;
comment on view resources is 'Every live object of every kind.';

create view pods as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    o.status ->> 'phase' as phase,
    nullif(
        case
            when o.metadata ->> 'deletionTimestamp' is null then (select s from pod_status(o.spec, o.status) as s)
            when o.status ->> 'reason' = 'NodeLost' then 'Unknown'
            when o.status ->> 'phase' in ('Succeeded', 'Failed') then (select s from pod_status(o.spec, o.status) as s)
            else 'Terminating'
        end,
        o.status ->> 'phase') as reason,
    case when o.stored then
        coalesce(first_text(o.status, '$.conditions[*] ? (@.type == "Ready").status') = 'True', false) end as ready,
    case when o.stored then (select n from pod_restarts(o.spec, o.status) as n) end as restarts,
    o.spec ->> 'nodeName' as node_name,
    o.status ->> 'podIP' as pod_ip,
    o.status ->> 'hostIP' as host_ip,
    o.status ->> 'qosClass' as qos_class,
    o.spec ->> 'serviceAccountName' as service_account,
    case when o.stored then
        array(select e.element ->> 'name' from elements(o.spec, 'containers') e) end as containers,
    a.cpu_request as cpu_request_cores,
    a.cpu_limit as cpu_limit_cores,
    whole_bytes(a.memory_request) as memory_request_bytes,
    whole_bytes(a.memory_limit) as memory_limit_bytes,
    o.owner_kind,
    o.owner_name,
    moment(o.status ->> 'startTime') as started_at
from live('', 'pods') as o
left join lateral pod_amounts(o.spec, o.status) as a on true;
comment on column pods.reason is
    'What kubectl''s STATUS says beyond the phase: CrashLoopBackOff, Completed, Evicted, Init:1/2, Terminating; NULL if it is the phase.';
comment on column pods.ready is 'The condition Ready, on which services route; kubectl''s READY counts containers instead.';
comment on column pods.restarts is 'As kubectl counts: of init containers while they run, then of containers and sidecars.';
comment on column pods.cpu_request_cores is
    'What the scheduler reckons, as the other three do: init containers, sidecars, overhead, and while a pod is resized the most '
    'of what it asks for and has. NULL: no container sets it.';

create view nodes as
select
    o.cluster, o.name, o.uid, o.created_at, o.labels,
    case when o.stored then
        coalesce(first_text(o.status, '$.conditions[*] ? (@.type == "Ready").status') = 'True', false) end as ready,
    case when o.stored then coalesce(as_boolean(o.spec ->> 'unschedulable'), false) end as unschedulable,
    first_text(o.status, '$.addresses[*] ? (@.type == "InternalIP").address') as internal_ip,
    o.status #>> '{nodeInfo,kubeletVersion}' as kubelet_version,
    o.status #>> '{nodeInfo,osImage}' as os_image,
    o.status #>> '{nodeInfo,kernelVersion}' as kernel_version,
    o.status #>> '{nodeInfo,containerRuntimeVersion}' as container_runtime,
    o.status #>> '{nodeInfo,architecture}' as architecture,
    quantity(o.status #>> '{capacity,cpu}') as cpu_capacity_cores,
    whole_bytes(quantity(o.status #>> '{capacity,memory}')) as memory_capacity_bytes,
    whole_bytes(quantity(o.status #>> '{capacity,ephemeral-storage}')) as ephemeral_storage_capacity_bytes,
    whole_bytes(quantity(o.status #>> '{capacity,pods}')) as pods_capacity,
    quantity(o.status #>> '{allocatable,cpu}') as cpu_allocatable_cores,
    whole_bytes(quantity(o.status #>> '{allocatable,memory}')) as memory_allocatable_bytes,
    whole_bytes(quantity(o.status #>> '{allocatable,ephemeral-storage}')) as ephemeral_storage_allocatable_bytes,
    whole_bytes(quantity(o.status #>> '{allocatable,pods}')) as pods_allocatable
from live('', 'nodes') as o;
comment on column nodes.ready is 'The condition Ready is True; a node that has stopped reporting is not.';

create view deployments as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    as_integer(o.spec ->> 'replicas') as replicas,
    case when o.stored then coalesce(as_integer(o.status ->> 'readyReplicas'), 0) end as ready_replicas,
    case when o.stored then coalesce(as_integer(o.status ->> 'updatedReplicas'), 0) end as updated_replicas,
    case when o.stored then coalesce(as_integer(o.status ->> 'availableReplicas'), 0) end as available_replicas,
    o.spec #>> '{strategy,type}' as strategy,
    case when o.stored then array(
        select e.element ->> 'image' from elements(o.spec #> '{template,spec}', 'containers') e) end as images
from live('apps', 'deployments') as o;
comment on column deployments.replicas is 'How many are wanted.';

create view services as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    o.spec ->> 'type' as type,
    o.spec ->> 'clusterIP' as cluster_ip,
    case when o.spec ->> 'type' = 'ExternalName' then array[o.spec ->> 'externalName']
        when o.stored then array(select e.element #>> '{}' from elements(o.spec, 'externalIPs') e)
    end as external_ips,
    case when o.stored then array(
        select coalesce(nullif(e.element ->> 'ip', ''), e.element ->> 'hostname')
        from elements(o.status -> 'loadBalancer', 'ingress') e) end as load_balancer_addresses,
    case when o.stored then array(
        select concat(e.element ->> 'port', ':' || nullif(e.element ->> 'nodePort', '0'),
            '/', coalesce(e.element ->> 'protocol', 'TCP'))
        from elements(o.spec, 'ports') e) end as ports,
    case when o.stored then as_map(o.spec -> 'selector') end as selector
from live('', 'services') as o;
comment on column services.cluster_ip is 'None: a headless service.';
comment on column services.external_ips is 'Of type ExternalName: the name it stands for.';
comment on column services.ports is 'As kubectl shows them: 443/TCP, with a node port 80:30080/TCP.';
comment on column services.selector is 'Labels its pods carry: pods.labels @> services.selector; {}: it selects none.';

create view ingresses as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    coalesce(o.spec ->> 'ingressClassName', o.metadata #>> '{annotations,kubernetes.io/ingress.class}') as class,
    case when o.stored then array(
        select coalesce(nullif(e.element ->> 'host', ''), '*') from elements(o.spec, 'rules') e) end as hosts,
    case when o.stored then array(
        select h.element #>> '{}'
        from elements(o.spec, 'tls') t
        cross join lateral elements(t.element, 'hosts') h) end as tls_hosts,
    case when o.stored then array(
        select coalesce(nullif(e.element ->> 'ip', ''), e.element ->> 'hostname')
        from elements(o.status -> 'loadBalancer', 'ingress') e) end as load_balancer_addresses
from live('networking.k8s.io', 'ingresses') as o;
comment on column ingresses.hosts is 'One for each rule; *: the rule is for any host.';

create view configmaps as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    case when o.stored then array(
        select k from sorted_keys(o.object -> 'data') as k
        union all select k from sorted_keys(o.object -> 'binaryData') as k) end as data_keys,
    case when o.stored then coalesce(as_boolean(o.object ->> 'immutable'), false) end as immutable
from live('', 'configmaps') as o;
comment on column configmaps.data_keys is 'Keys of data, then those of binaryData.';

create view secrets as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    o.object ->> 'type' as type,
    case when o.stored then array(select k from sorted_keys(o.object -> 'data') as k) end as data_keys,
    case when o.stored then coalesce(as_boolean(o.object ->> 'immutable'), false) end as immutable
from live('', 'secrets') as o;

create view persistentvolumes as
select
    o.cluster, o.name, o.uid, o.created_at, o.labels,
    o.status ->> 'phase' as phase,
    whole_bytes(quantity(o.spec #>> '{capacity,storage}')) as capacity_bytes,
    case when o.stored then array(select e.element #>> '{}' from elements(o.spec, 'accessModes') e) end as access_modes,
    o.spec ->> 'persistentVolumeReclaimPolicy' as reclaim_policy,
    coalesce(
        o.metadata #>> '{annotations,volume.beta.kubernetes.io/storage-class}', o.spec ->> 'storageClassName')
        as storage_class,
    o.spec #>> '{claimRef,namespace}' as claim_namespace,
    o.spec #>> '{claimRef,name}' as claim_name,
    coalesce(o.spec #>> '{csi,driver}', (
        select k from sorted_keys(o.spec) as k
        where k in (
            'awsElasticBlockStore', 'azureDisk', 'azureFile', 'cephfs', 'cinder', 'csi', 'fc', 'flexVolume', 'flocker',
            'gcePersistentDisk', 'glusterfs', 'hostPath', 'iscsi', 'local', 'nfs', 'photonPersistentDisk',
            'portworxVolume', 'quobyte', 'rbd', 'scaleIO', 'storageos', 'vsphereVolume')
        limit 1)) as source,
    case when o.metadata ->> 'deletionTimestamp' is null then o.status ->> 'phase' else 'Terminating' end as status
from live('', 'persistentvolumes') as o;
comment on column persistentvolumes.phase is 'Bound, Available, Released...; it goes on while the object is being deleted.';
comment on column persistentvolumes.status is 'As kubectl shows it: Terminating if it is being deleted, else the phase.';
comment on column persistentvolumes.source is 'The CSI driver (ebs.csi.aws.com), else the plugin (nfs, hostPath).';

create view persistentvolumeclaims as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    o.status ->> 'phase' as phase,
    whole_bytes(quantity(o.spec #>> '{resources,requests,storage}')) as requested_bytes,
    whole_bytes(quantity(o.status #>> '{capacity,storage}')) as capacity_bytes,
    case when o.stored then array(
        select e.element #>> '{}'
        from elements(
            case when jsonb_typeof(o.status -> 'accessModes') = 'array' then o.status else o.spec end, 'accessModes') e)
    end as access_modes,
    coalesce(
        o.metadata #>> '{annotations,volume.beta.kubernetes.io/storage-class}', o.spec ->> 'storageClassName')
        as storage_class,
    o.spec ->> 'volumeName' as volume_name,
    case when o.metadata ->> 'deletionTimestamp' is null then o.status ->> 'phase' else 'Terminating' end as status
from live('', 'persistentvolumeclaims') as o;
comment on column persistentvolumeclaims.status is 'As kubectl shows it: Terminating if it is being deleted, else the phase.';
comment on column persistentvolumeclaims.access_modes is 'Those it has; those it asks for while it is not bound.';

create view namespaces as
select
    o.cluster, o.name, o.uid, o.created_at, o.labels,
    o.status ->> 'phase' as phase
from live('', 'namespaces') as o;

create view replicasets as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    as_integer(o.spec ->> 'replicas') as replicas,
    case when o.stored then coalesce(as_integer(o.status ->> 'replicas'), 0) end as current_replicas,
    case when o.stored then coalesce(as_integer(o.status ->> 'readyReplicas'), 0) end as ready_replicas,
    case when o.stored then array(
        select e.element ->> 'name' from elements(o.spec #> '{template,spec}', 'containers') e) end as containers,
    case when o.stored then array(
        select e.element ->> 'image' from elements(o.spec #> '{template,spec}', 'containers') e) end as images,
    case when o.stored then as_map(o.spec -> 'selector') end as selector,
    o.owner_kind,
    o.owner_name
from live('apps', 'replicasets') as o;
comment on column replicasets.selector is 'matchLabels and matchExpressions as the object has them; so in the other views.';

create view statefulsets as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    as_integer(o.spec ->> 'replicas') as replicas,
    case when o.stored then coalesce(as_integer(o.status ->> 'readyReplicas'), 0) end as ready_replicas,
    case when o.stored then array(
        select e.element ->> 'name' from elements(o.spec #> '{template,spec}', 'containers') e) end as containers,
    case when o.stored then array(
        select e.element ->> 'image' from elements(o.spec #> '{template,spec}', 'containers') e) end as images
from live('apps', 'statefulsets') as o;

create view daemonsets as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    case when o.stored then coalesce(as_integer(o.status ->> 'desiredNumberScheduled'), 0) end as desired_pods,
    case when o.stored then coalesce(as_integer(o.status ->> 'currentNumberScheduled'), 0) end as current_pods,
    case when o.stored then coalesce(as_integer(o.status ->> 'numberReady'), 0) end as ready_pods,
    case when o.stored then coalesce(as_integer(o.status ->> 'updatedNumberScheduled'), 0) end as updated_pods,
    case when o.stored then coalesce(as_integer(o.status ->> 'numberAvailable'), 0) end as available_pods,
    case when o.stored then as_map(o.spec #> '{template,spec,nodeSelector}') end as node_selector,
    case when o.stored then array(
        select e.element ->> 'name' from elements(o.spec #> '{template,spec}', 'containers') e) end as containers,
    case when o.stored then array(
        select e.element ->> 'image' from elements(o.spec #> '{template,spec}', 'containers') e) end as images,
    case when o.stored then as_map(o.spec -> 'selector') end as selector
from live('apps', 'daemonsets') as o;

-- Source of status: printJob of kubectl's printers.
create view jobs as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    case
        when not o.stored then null
        when first_text(o.status, '$.conditions[*] ? (@.type == "Complete" && @.status == "True").type') is not null
            then 'Complete'
        when first_text(o.status, '$.conditions[*] ? (@.type == "Failed" && @.status == "True").type') is not null
            then 'Failed'
        when o.metadata ->> 'deletionTimestamp' is not null then 'Terminating'
        else coalesce(
            first_text(o.status, '$.conditions[*] ? (@.type == "Suspended" && @.status == "True").type'),
            first_text(o.status, '$.conditions[*] ? (@.type == "FailureTarget" && @.status == "True").type'),
            first_text(o.status, '$.conditions[*] ? (@.type == "SuccessCriteriaMet" && @.status == "True").type'),
            'Running')
    end as status,
    as_integer(o.spec ->> 'completions') as completions,
    as_integer(o.spec ->> 'parallelism') as parallelism,
    case when o.stored then coalesce(as_integer(o.status ->> 'active'), 0) end as active,
    case when o.stored then coalesce(as_integer(o.status ->> 'succeeded'), 0) end as succeeded,
    case when o.stored then coalesce(as_integer(o.status ->> 'failed'), 0) end as failed,
    moment(o.status ->> 'startTime') as started_at,
    moment(o.status ->> 'completionTime') as completed_at,
    extract(epoch from coalesce(
        moment(o.status ->> 'completionTime'),
        case when first_text(o.status, '$.conditions[*] ? (@.type == "Failed" && @.status == "True").type') is null
            then now()
            else moment(first_text(
                o.status, '$.conditions[*] ? (@.type == "Failed" && @.status == "True").lastTransitionTime')) end)
        - moment(o.status ->> 'startTime'))::double precision as duration_s,
    case when o.stored then array(
        select e.element ->> 'name' from elements(o.spec #> '{template,spec}', 'containers') e) end as containers,
    case when o.stored then array(
        select e.element ->> 'image' from elements(o.spec #> '{template,spec}', 'containers') e) end as images,
    case when o.stored then as_map(o.spec -> 'selector') end as selector,
    o.owner_kind,
    o.owner_name
from live('batch', 'jobs') as o;
comment on column jobs.completions is 'How many must succeed; NULL: any one does.';
comment on column jobs.duration_s is 'From start to completion or failure, or until now.';

create view cronjobs as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    o.spec ->> 'schedule' as schedule,
    o.spec ->> 'timeZone' as time_zone,
    case when o.stored then coalesce(as_boolean(o.spec ->> 'suspend'), false) end as suspend,
    case when o.stored then (select count(*)::integer from elements(o.status, 'active')) end as active,
    moment(o.status ->> 'lastScheduleTime') as last_schedule_at,
    moment(o.status ->> 'lastSuccessfulTime') as last_successful_at,
    case when o.stored then array(
        select e.element ->> 'name'
        from elements(o.spec #> '{jobTemplate,spec,template,spec}', 'containers') e) end as containers,
    case when o.stored then array(
        select e.element ->> 'image'
        from elements(o.spec #> '{jobTemplate,spec,template,spec}', 'containers') e) end as images,
    case when o.stored then as_map(o.spec #> '{jobTemplate,spec,selector}') end as selector
from live('batch', 'cronjobs') as o;
comment on column cronjobs.time_zone is 'NULL: that of the controller manager.';

-- Source: printEvent of kubectl's printers.
create view events as
select
    o.cluster, o.namespace, o.name, o.uid, o.created_at, o.labels,
    coalesce(
        moment(o.object #>> '{series,lastObservedTime}'),
        moment(o.object ->> 'lastTimestamp'),
        moment(o.object ->> 'firstTimestamp'),
        moment(o.object ->> 'eventTime')) as last_seen_at,
    o.object ->> 'type' as type,
    o.object ->> 'reason' as reason,
    o.object #>> '{involvedObject,kind}' as object_kind,
    o.object #>> '{involvedObject,name}' as object_name,
    o.object #>> '{involvedObject,fieldPath}' as object_field,
    nullif(concat_ws(', ',
        coalesce(nullif(o.object #>> '{source,component}', ''), nullif(o.object ->> 'reportingComponent', '')),
        coalesce(nullif(o.object #>> '{source,host}', ''), nullif(o.object ->> 'reportingInstance', ''))), '') as source,
    o.object ->> 'message' as message,
    coalesce(moment(o.object ->> 'firstTimestamp'), moment(o.object ->> 'eventTime')) as first_seen_at,
    case when o.stored then coalesce(
        as_integer(o.object #>> '{series,count}'), nullif(as_integer(o.object ->> 'count'), 0), 1) end as count
from live('', 'events') as o;
comment on column events.object_field is 'The part of the object meant: spec.containers{app}.';

-- Containers are found within the object, which `o.spec` would copy once for each kind of them; and what a status says of one
-- mostly stands at its place. That is a third of the time.
create view container_images as
select
    o.cluster, o.namespace, o.name as pod,
    c.element ->> 'name' as container,
    c.element ->> 'image' as image,
    nullif(case
        when o.object #>> array['status', sort.statuses, (c.place - 1)::text, 'name'] = c.element ->> 'name'
            then o.object #>> array['status', sort.statuses, (c.place - 1)::text, 'imageID']
        else (
            select s.element ->> 'imageID'
            from elements(o.status, sort.statuses) s
            where s.element -> 'name' = c.element -> 'name'
            limit 1)
        end, '') as image_id,
    sort.init
from live('', 'pods') as o
cross join (
    values ('strict $.spec.containers[*]'::jsonpath, 'containerStatuses', false),
        ('strict $.spec.initContainers[*]', 'initContainerStatuses', true),
        ('strict $.spec.ephemeralContainers[*]', 'ephemeralContainerStatuses', false)
) as sort (containers, statuses, init)
cross join lateral jsonb_path_query(o.object, sort.containers, '{}', true) with ordinality as c (element, place);
comment on view container_images is 'What every container of every pod runs; those of kubectl debug included.';

-- What is verified has as many rows as its list proved. Of any other kind they are counted, each once: where namespaces are
-- listed by themselves, the row of all of them has the rest.
create view freshness as
select
    s.cluster, s.api_group, s.resource, s.kind, s.reach, s.objects, s.state, s.following, s.verified_at,
    extract(epoch from now() - s.verified_at)::double precision as age_s,
    s.last_error
from (
    select
        c.label as cluster, u.api_group, u.resource, u.kind,
        coalesce(f.reach, '') as reach,
        case
            when u.state is null and f.state = 'verified' and w.heard is null then f.objects
            else (
                select count(*) from resource r
                where r.unit_id = u.id and not r.deleted and coalesce(f.reach, '') in ('', r.namespace) and not exists (
                    select from unit_floor o
                    where f.reach = '' and o.unit_id = u.id and o.reach <> '' and o.reach = r.namespace))
        end as objects,
        case when u.state is null and coalesce(w.following or w.heard >= f.state_at, false) then 'verified'
            else coalesce(u.state, f.state, 'unverified') end as state,
        u.state is null and coalesce(w.following, false) as following,
        case
            when u.state is null then greatest(f.verified_at, w.heard)
            else (select max(o.verified_at) from unit_floor o where o.unit_id = u.id)
        end as verified_at,
        case when u.state is null and not coalesce(w.following or w.heard >= f.state_at, false) then f.last_error end
            as last_error
    from unit u
    join cluster c on c.id = u.cluster_id
    left join unit_floor f on f.unit_id = u.id and u.state is null
    -- A session may be silent for two minutes before its watch counts as behind, and a progress comes late.
    left join lateral (
        select max(o.heard) as heard, bool_or(o.heard > now() - interval '2 minutes' - t.interval_s * interval '2 s')
            as following
        from followed() o
        join watch_session t on t.id = o.session_id
        where o.unit_id = u.id and o.reach = coalesce(f.reach, '') and o.epoch >= coalesce(f.epoch, 0)
            and not t.is_unverified
    ) as w on true
) as s;
comment on view freshness is 'How far each kind may be believed: one row for each reach (a namespace; empty: all) it is listed by.';
