-- What each view and each of its columns means, for `\d+`, for clients that show comments, and for docs/DATA.md, which is
-- made of them. What needs more than a line has its comment beside the view (0003_views.sql), and keeps it.

do $$
declare
    said record;
begin
    for said in
        select c.relname as view, w.text
        from (values
            ('pods', 'Live pods. Requests and limits are those of the whole pod.'),
            ('nodes', 'Live nodes. Capacity is what there is, allocatable what pods may request of it.'),
            ('deployments', 'Live Deployments.'),
            ('services', 'Live Services.'),
            ('ingresses', 'Live Ingresses.'),
            ('configmaps', 'Live ConfigMaps; their values are in resources.object.'),
            ('secrets', 'Live Secrets, where the collector may list them: keys; values never left the cluster.'),
            ('persistentvolumes', 'Live PersistentVolumes.'),
            ('persistentvolumeclaims', 'Live PersistentVolumeClaims.'),
            ('namespaces', 'Live Namespaces.'),
            ('replicasets', 'Live ReplicaSets.'),
            ('statefulsets', 'Live StatefulSets.'),
            ('daemonsets', 'Live DaemonSets.'),
            ('jobs', 'Live Jobs.'),
            ('cronjobs', 'Live CronJobs.'),
            ('events', 'Live Events: those that the API server still keeps, an hour unless set otherwise.')
        ) as w (view, text)
        join pg_class c on c.relname = w.view and c.relnamespace = current_schema()::regnamespace and c.relkind = 'v'
    loop
        execute format('comment on view %I is %L', said.view, said.text);
    end loop;

    -- A column of several views means the same in each; `*` is any view.
    for said in
        select distinct on (c.relname, a.attnum) c.relname as view, a.attname as name, w.text
        from (values
            ('*', 'cluster', 'Name of the cluster: cluster.label.'),
            ('*', 'namespace', 'Namespace; empty: none.'),
            ('*', 'name', 'metadata.name.'),
            ('*', 'uid', 'metadata.uid: another one is another object of that name.'),
            ('*', 'created_at', 'metadata.creationTimestamp.'),
            ('*', 'labels', 'metadata.labels, name to value.'),
            ('*', 'owner_kind', 'Kind of the object that owns it: of its controller, else of the first owner.'),
            ('*', 'owner_name', 'Name of that object.'),
            ('*', 'containers', 'Names of its containers.'),
            ('*', 'images', 'Images of its containers, in their order.'),
            ('*', 'ready_replicas', 'How many are ready.'),
            ('*', 'replicas', 'How many are wanted.'),
            ('*', 'selector', 'matchLabels and matchExpressions as the object has them.'),
            ('*', 'data_keys', 'Keys of its data.'),
            ('*', 'immutable', 'Whether its data can no longer be changed.'),
            ('*', 'storage_class', 'Its StorageClass.'),
            ('*', 'access_modes', 'ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod.'),
            ('*', 'load_balancer_addresses', 'Addresses, or names, that a load balancer gave it.'),
            ('*', 'resource', 'Plural name of the kind, as in the API''s paths: pods.'),
            ('*', 'kind', 'Kind: Pod.'),
            ('*', 'api_group', 'API group; empty: core.'),
            ('resources', 'api_version', 'API version (v1, apps/v1) under which the kind was last listed.'),
            ('resources', 'resource_version', 'metadata.resourceVersion: opaque, compare for equality only.'),
            ('resources', 'first_observed_at', 'When the object, of this uid, was first seen.'),
            ('resources', 'last_observed_at', 'When it was last seen: the newest list that has it.'),
            ('resources', 'changed_by', 'Field manager that wrote last: a name that clients give themselves, no user; NULL: none.'),
            ('resources', 'changed_at', 'When it did, to the second.'),
            ('resources', 'state', 'whole; sanitised: repaired, the bytes that came are in resource.original; oversize: its size and '
                'SHA-256 alone; identity: nothing else, the rest is a dead letter.'),
            ('resources', 'annotations', 'metadata.annotations, name to value.'),
            ('resources', 'owner_uid', 'Uid of the object that owns it.'),
            ('resources', 'object', 'The whole manifest, secrets replaced; NULL: oversize or identity.'),
            ('pods', 'phase', 'Pending, Running, Succeeded, Failed or Unknown.'),
            ('pods', 'node_name', 'The node it is bound to; NULL: none yet.'),
            ('pods', 'pod_ip', 'Its address.'),
            ('pods', 'host_ip', 'The address of its node.'),
            ('pods', 'qos_class', 'Guaranteed, Burstable or BestEffort.'),
            ('pods', 'service_account', 'Its ServiceAccount.'),
            ('pods', 'cpu_limit_cores', 'CPU it may use, in cores; NULL: no limit.'),
            ('pods', 'memory_request_bytes', 'Memory it requests, in bytes; NULL: no container sets it.'),
            ('pods', 'memory_limit_bytes', 'Memory it may use, in bytes; NULL: no limit.'),
            ('pods', 'started_at', 'When its node acknowledged it, before images are pulled.'),
            ('nodes', 'unschedulable', 'Cordoned: no new pods are bound to it.'),
            ('nodes', 'internal_ip', 'Its first address of the type InternalIP.'),
            ('nodes', 'kubelet_version', 'Version of its kubelet.'),
            ('nodes', 'os_image', 'Operating system, as the node calls it.'),
            ('nodes', 'kernel_version', 'Version of its kernel.'),
            ('nodes', 'container_runtime', 'Container runtime and version: containerd://2.0.5.'),
            ('nodes', 'architecture', 'amd64, arm64.'),
            ('nodes', 'cpu_capacity_cores', 'CPU, in cores.'),
            ('nodes', 'memory_capacity_bytes', 'Memory, in bytes.'),
            ('nodes', 'ephemeral_storage_capacity_bytes', 'Local disk, in bytes.'),
            ('nodes', 'pods_capacity', 'Pods it can run.'),
            ('nodes', 'cpu_allocatable_cores', 'CPU that pods may request, in cores.'),
            ('nodes', 'memory_allocatable_bytes', 'Memory that pods may request, in bytes.'),
            ('nodes', 'ephemeral_storage_allocatable_bytes', 'Local disk that pods may request, in bytes.'),
            ('nodes', 'pods_allocatable', 'Pods that may be bound to it.'),
            ('deployments', 'updated_replicas', 'How many have the present template.'),
            ('deployments', 'available_replicas', 'How many have been ready for minReadySeconds.'),
            ('deployments', 'strategy', 'RollingUpdate or Recreate.'),
            ('services', 'type', 'ClusterIP, NodePort, LoadBalancer or ExternalName.'),
            ('ingresses', 'class', 'Its IngressClass, by the spec or by the older annotation.'),
            ('ingresses', 'tls_hosts', 'Hosts that its certificates are for.'),
            ('secrets', 'type', 'Opaque, kubernetes.io/tls, ...'),
            ('persistentvolumes', 'capacity_bytes', 'Its size, in bytes.'),
            ('persistentvolumes', 'reclaim_policy', 'What becomes of it once its claim is gone: Retain, Delete or Recycle.'),
            ('persistentvolumes', 'claim_namespace', 'Namespace of the claim it is bound to.'),
            ('persistentvolumes', 'claim_name', 'Name of the claim it is bound to; NULL: none.'),
            ('persistentvolumeclaims', 'phase', 'Pending, Bound or Lost.'),
            ('persistentvolumeclaims', 'requested_bytes', 'The size it asks for, in bytes.'),
            ('persistentvolumeclaims', 'capacity_bytes', 'The size it has, in bytes; NULL: it is not bound.'),
            ('persistentvolumeclaims', 'volume_name', 'The volume it is bound to.'),
            ('namespaces', 'phase', 'Active or Terminating.'),
            ('replicasets', 'current_replicas', 'How many there are.'),
            ('daemonsets', 'desired_pods', 'Nodes that should run one.'),
            ('daemonsets', 'current_pods', 'Nodes that should run one and do.'),
            ('daemonsets', 'ready_pods', 'How many are ready.'),
            ('daemonsets', 'updated_pods', 'How many have the present template.'),
            ('daemonsets', 'available_pods', 'How many have been ready for minReadySeconds.'),
            ('daemonsets', 'node_selector', 'Labels that nodes must have.'),
            ('jobs', 'status', 'As kubectl shows it: Running, Complete, Failed, Suspended, Terminating, ...'),
            ('jobs', 'parallelism', 'Pods that may run at the same time.'),
            ('jobs', 'active', 'Pods that run or wait.'),
            ('jobs', 'succeeded', 'Pods that succeeded.'),
            ('jobs', 'failed', 'Pods that failed.'),
            ('jobs', 'started_at', 'When it began.'),
            ('jobs', 'completed_at', 'When it was complete; NULL: it is not, or failed.'),
            ('cronjobs', 'schedule', 'Its cron expression.'),
            ('cronjobs', 'suspend', 'Whether it makes no more Jobs.'),
            ('cronjobs', 'active', 'Jobs of it that run.'),
            ('cronjobs', 'last_schedule_at', 'When it last made a Job.'),
            ('cronjobs', 'last_successful_at', 'When a Job of it last succeeded.'),
            ('events', 'last_seen_at', 'When it last happened.'),
            ('events', 'first_seen_at', 'When it first happened.'),
            ('events', 'type', 'Normal or Warning.'),
            ('events', 'reason', 'The word for it: FailedScheduling, BackOff.'),
            ('events', 'object_kind', 'Kind of the object it is about.'),
            ('events', 'object_name', 'Name of the object it is about.'),
            ('events', 'source', 'Who reports it, and from where.'),
            ('events', 'message', 'What happened, in words.'),
            ('events', 'count', 'How often it happened.'),
            ('container_images', 'pod', 'The pod.'),
            ('container_images', 'container', 'Name of the container.'),
            ('container_images', 'image', 'The image, as the pod names it.'),
            ('container_images', 'image_id', 'The image that runs, by its digest; NULL: it does not run yet.'),
            ('container_images', 'init', 'Whether it is an init container.'),
            ('freshness', 'reach', 'The namespace that is listed by itself; empty: all.'),
            ('freshness', 'objects', 'Rows of the kind within the reach, whatever its state.'),
            ('freshness', 'state', 'verified: the newest list arrived whole, or it is followed; unverified: something is missing yet; '
                'failed, forbidden: it could not be listed; excluded: by EXCLUDE or INCLUDE; gone: the cluster no longer serves the kind.'),
            ('freshness', 'following', 'Whether its changes arrive as they happen, by a watch that was heard from lately.'),
            ('freshness', 'verified_at', 'When its rows were last proven to be what the cluster had.'),
            ('freshness', 'age_s', 'Seconds since then.'),
            ('freshness', 'last_error', 'Why it is not verified; of what is, why its watch does not follow it; NULL: neither.')
        ) as w (view, name, text)
        join pg_class c on w.view in (c.relname, '*') and c.relnamespace = current_schema()::regnamespace and c.relkind = 'v'
        join pg_attribute a on a.attrelid = c.oid and a.attname = w.name and a.attnum > 0
        where col_description(c.oid, a.attnum) is null
        order by c.relname, a.attnum, w.view = '*'
    loop
        execute format('comment on column %I.%I is %L', said.view, said.name, said.text);
    end loop;
end
$$;
