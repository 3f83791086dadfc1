"""Which scene or test misses each guard of the merge: the table of `mutations.py`."""

from __future__ import annotations

from collections.abc import Mapping

DECISIONS = "tests/integration/test_postgres_decisions.py::"
GAPS = "tests/integration/test_postgres_gaps.py::"
FOLLOWING = "tests/integration/test_postgres_following.py::"
GUARDS = "tests/integration/test_postgres_guards.py::"
LOCKS = "tests/integration/test_postgres_locks.py::"
LETTERS = "tests/integration/test_letter_bound.py::"
DEAD = "tests/integration/test_dead_letters.py::"
OWNERS = "tests/integration/test_topic_owners.py::"
SEEN = "tests/integration/test_postgres_seen.py::"
SINK = "tests/integration/test_postgres_sink.py::"

MISSED_BY: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "ensure_cluster": {
        "founded": ("on conflict (uid) do nothing",),
    },
    "adopt_clusters": {
        OWNERS + "test_of_two_topics_that_speak_of_what_was_written_directly_one_is_the_owner": (
            "where uid = any ($1::text[])",
            "and topic = ''",
        ),
    },
    "add_dead_letters": {
        DEAD + "test_a_dead_letter_that_was_dropped_stays_dropped": ("where not exists (...)",),
        DEAD + "test_what_was_dropped_elsewhere_keeps_no_letter_away[topic]": ("where d.topic = letter.topic",),
        DEAD + "test_what_was_dropped_elsewhere_keeps_no_letter_away[partition]": (
            "and d.partition = letter.partition",
        ),
        DEAD + "test_what_was_dropped_elsewhere_keeps_no_letter_away[record_offset]": (
            "and d.record_offset = letter.record_offset",
        ),
        DEAD + "test_what_was_dropped_elsewhere_keeps_no_letter_away[message_hash]": (
            "and d.message_hash = letter.message_hash",
        ),
        LETTERS + "test_the_newest_rows_stay": ("order by place",),
        DEAD + "test_what_is_read_again_is_one_dead_letter": ("on conflict do nothing",),
    },
    "drop_oldest_letters": {
        LETTERS + "test_the_newest_rows_stay": (
            "where place > $1",
            "place > $1 or",
            "where id <= (...)",
            "order by id desc",
            "where d.id = o.id",
        ),
        LETTERS + "test_the_newest_bytes_stay": ("or size_bytes > $2", "coalesce(pg_column_size(key), 0)"),
        LETTERS + "test_a_large_surplus_goes_in_small_steps": ("order by id", "limit $3"),
        LETTERS + "test_what_is_stored_waits_for_no_letter_and_no_letter_for_a_replay": ("for update skip locked",),
    },
    "rename_cluster": {
        "belated": (
            "where id = $1",
            "and last_seen <= $3",
        ),
        GUARDS + "test_a_cluster_that_keeps_its_name_is_not_reported": ("and name <> $2",),
    },
    "record_name": {
        "belated": ("on conflict (cluster_id, name) do update",),
        GUARDS + "test_names_come_in_turns_whichever_is_stored_first": (
            "least(n.first_said, excluded.first_said)",
            "greatest(n.last_said, excluded.last_said) #2",
        ),
        GAPS + "test_whatever_order_snapshots_come_in_the_cluster_is_contested": (
            "least(n.first_said, excluded.first_said) #2",
            "greatest(n.last_said, excluded.last_said)",
        ),
    },
    "contest_cluster": {
        GUARDS + "test_a_cluster_stays_contested_though_its_snapshots_were_pruned": (
            "coalesce(min(started_at), '-infinity')",
        ),
        GUARDS + "test_one_cluster_is_contested_and_no_other": (
            "where cluster_id = $1",
            "where cluster_id = $1 #2",
            "where c.id = $1",
        ),
        GAPS + "test_what_two_clusters_mixed_is_corrected_once_one_has_an_identity_of_its_own[B]": (
            "order by started_at desc",
            "and earlier.last_said >= recent.since",
            "or c.contested_at is not null",
        ),
        GAPS + "test_what_two_clusters_mixed_is_corrected_once_one_has_an_identity_of_its_own[A]": (
            "limit 5",
            "greatest(c.contested_at, named.turned_at)",
            "when c.contested_at >= recent.since then",
        ),
        GAPS + "test_a_name_given_back_is_one_cluster": (
            "and earlier.first_said < later.first_said",
            "and later.first_said < earlier.last_said",
            "and earlier.last_said < later.last_said",
        ),
        GAPS + "test_two_clusters_under_one_identity_are_reported_once_they_take_turns": (
            "when named.names is not null then",
            "named.names is not null or",
        ),
        GUARDS + "test_the_last_turn_that_was_seen_counts_though_it_is_none_any_more": (
            "greatest(c.contested_at, named.turned_at) #2",
        ),
    },
    "lock_cluster_units": {
        GUARDS + "test_one_cluster_is_contested_and_no_other": ("where cluster_id = $1",),
        LOCKS + "test_an_alarm_waits_for_the_first_unit_of_its_cluster_and_holds_none": (
            "order by id",
            "for update",
        ),
    },
    "unverify_units": {
        GUARDS + "test_one_cluster_is_contested_and_no_other": (
            "where unit_id = any ($1::bigint[])",
            "where r.unit_id = any ($1)",
            "where unit_id = any ($1) #2",
        ),
        SEEN + "test_what_two_clusters_mixed_is_taken_back_and_no_other": (
            "where unit_id = any ($1)",
            "and (s.unit_id, s.namespace, s.name) = (r.unit_id, r.namespace, r.name)",
        ),
        GUARDS + "test_an_alarm_leaves_what_has_failed_and_what_is_newer": (
            "when state = 'verified' then",
            "greatest(state_at, $2)",
            "greatest(state_at, $2) #2",
        ),
    },
    "bury": {
        "narrow": (
            "where r.unit_id = a.unit_id",
            "and (a.reach = '' or r.namespace = a.reach)",
        ),
        "together": (
            "or r.namespace = a.reach",
            "and case when a.unseen_since is not null then r.last_observed_at < a.unseen_since when ...",
            "coalesce(a.unseen_since, (...))",
            "coalesce(p.seen_at, list_began_at(p.list, p.completed_at))",
            "where p.list = any ($6::uuid[])",
            "and p.unit_id = r.unit_id",
            "and p.reach in ('', r.namespace)",
            "and (p.epoch, p.live_at) > (r.epoch, r.live_at)",
            "greatest(valid_from, gone_at)",
        ),
        "buried": (
            "a.reach = '' or",
            "when r.deleted then",
            "where not deleted",
        ),
        "abolished": ("when a.unseen_since is not null then",),
        SEEN + "test_rules_that_look_simpler_lose_rows[None]": ("and (r.id <@ a.named) is not true",),
        SEEN + "test_what_only_an_older_list_named_is_gone": ("and (l.epoch, l.live_at) >= (t.epoch, t.live_at)",),
        SEEN + "test_a_kind_is_gone_unless_a_list_has_named_its_objects_since[90-live1]": (
            "and (l.seen_at < t.unseen_since) is not true",
        ),
        SEEN + "test_an_object_was_gone_when_the_first_list_without_it_began": (
            "and not exists (...)",
            "where l.ids @> r.id",
            "and (l.epoch, l.live_at) >= (p.epoch, p.live_at)",
        ),
        GUARDS + "test_an_object_that_a_slow_list_showed_was_there_until_then[False]": (
            "greatest(valid_from, gone_at) #2",
        ),
        GUARDS + "test_a_tombstone_is_not_counted_as_deleted": ("where not deleted #2",),
    },
    "add_progress": {
        "hasty": (
            "coalesce(expected_count = count and expected_digest::numeric = digest::numeric, false)",
            "on conflict (list) do update",
            "coalesce(excluded.completed_at, p.completed_at)",
            "coalesce(coalesce(excluded.expected_count, p.expected_count) = p.count + excluded.count and ...",
            "coalesce(excluded.expected_count, p.expected_count) #2",
            "coalesce(excluded.expected_digest, p.expected_digest) #2",
        ),
        GUARDS + "test_a_list_is_proven_by_its_count_and_its_digest[digest-True]": (
            "and expected_digest::numeric = digest::numeric",
        ),
        GUARDS + "test_a_list_is_proven_by_its_count_and_its_digest[count-True]": ("expected_count = count and",),
        "stubbed": (
            "coalesce(excluded.expected_count, p.expected_count)",
            "coalesce(excluded.expected_digest, p.expected_digest)",
        ),
        GUARDS + "test_a_list_is_proven_by_its_count_and_its_digest[digest-False]": (
            "and coalesce(excluded.expected_digest, p.expected_digest) = mod(p.digest + excluded.digest, ...",
        ),
        GUARDS + "test_a_list_is_proven_by_its_count_and_its_digest[count-False]": (
            "coalesce(excluded.expected_count, p.expected_count) = p.count + excluded.count and",
        ),
        "repeated": ("where not p.settled",),
        OWNERS + "test_the_ids_of_anothers_list_and_snapshot_change_nothing_of_it": (
            "and p.unit_id = excluded.unit_id",
        ),
    },
    "find_overtaken": {
        "stubbed": ("and (p.settled or (p.epoch, p.live_at) <= (f.epoch, f.live_at))",),
        "crowded": ("or (p.epoch, p.live_at) <= (f.epoch, f.live_at)",),
        "together": ("p.settled or",),
    },
    "find_stalled_versions": {
        GUARDS + "test_one_kind_stands_still_and_no_other": ("where u.id = v.unit_id",),
        "narrow": ("and exists (...)",),
        "together": (
            "where f.unit_id = v.unit_id",
            "and (f.epoch, f.live_at) = (v.epoch, v.live_at)",
            "where o.unit_id = v.unit_id",
            "and (o.epoch, o.live_at) = (v.epoch, v.live_at)",
            "and o.digest <> v.digest",
        ),
        GUARDS + "test_one_version_shows_one_state_to_lists_of_every_reach[False]": ("and f.reach = v.reach",),
        "unlearnt": ("and f.digest <> v.digest",),
        GUARDS + "test_one_version_shows_one_state_to_lists_of_every_reach[True]": ("and o.reach = v.reach",),
        GUARDS + "test_a_list_under_way_does_not_show_that_versions_stand_still": ("where list = any ($1::uuid[])",),
    },
    "drop_unit_progress": {
        GUARDS + "test_one_kind_stands_still_and_no_other": ("where unit_id = any ($1::bigint[])",),
    },
    "find_backwards": {
        FOLLOWING + "test_what_was_watched_of_others_refutes_no_list": (
            "where r.unit_id = v.unit_id #2",
            "and (v.reach = '' or r.namespace = v.reach) #2",
            "or r.namespace = v.reach #2",
        ),
        FOLLOWING + "test_a_list_below_what_was_watched_before_it_began_runs_backwards[an interval]": (
            "v.reach = '' or #2",
        ),
        FOLLOWING + "test_of_what_lists_alone_have_seen_the_floor_tells_what_runs_backwards": (
            "and exists (...)",
            "on c.uid = s.cluster",
            "on u.cluster_id = c.id",
            "where u.id = v.unit_id #2",
        ),
        FOLLOWING + "test_a_list_below_what_was_watched_meanwhile_does_not": (
            "and r.last_observed_at < v.began_at - interval '1 minute'",
        ),
        "backwards": (
            "where list = any ($1::uuid[])",
            "where f.unit_id = v.unit_id",
            "where o.unit_id = v.unit_id",
            "on c.id = u.cluster_id",
            "where u.id = v.unit_id",
            "where (v.epoch, v.live_at) < (b.epoch, b.live_at)",
        ),
        GUARDS + "test_a_list_of_another_namespace_refutes_nothing[False]": ("and f.reach in ('', v.reach)",),
        "sluggish": ("and f.proven_at < v.began_at",),
        GUARDS + "test_a_list_of_another_namespace_refutes_nothing[True]": ("and o.reach in ('', v.reach)",),
        "together": ("and o.completed_at < v.began_at",),
        GUARDS + "test_an_object_of_another_kind_refutes_nothing": ("where r.unit_id = v.unit_id",),
        GUARDS + "test_an_object_of_a_higher_epoch_refutes_lists_that_should_show_it[elsewhere-verified]": (
            "and (v.reach = '' or r.namespace = v.reach)",
        ),
        GUARDS + "test_an_object_of_a_higher_epoch_refutes_lists_that_should_show_it[ns-failed]": (
            "or r.namespace = v.reach",
        ),
        GUARDS + "test_an_object_of_a_higher_epoch_refutes_lists_that_should_show_it[-failed]": ("v.reach = '' or",),
        GUARDS + "test_a_newer_object_of_the_same_epoch_refutes_nothing": ("and r.epoch > v.epoch",),
        GUARDS + "test_an_object_seen_since_a_list_began_refutes_nothing": ("and r.last_observed_at < v.began_at",),
        GUARDS + "test_an_epoch_that_no_snapshot_has_refutes_nothing": ("and v.epoch < (...)",),
        GUARDS + "test_a_restored_cluster_is_told_the_newest_that_was_proven": (
            "order by 1 desc, 2 desc",
            "limit 1",
        ),
    },
    "set_states": {
        "together": ("order by unit_id, reach, state_at desc, state desc",),
        "abolished": (
            "where u.id = s.unit_id",
            "and u.state_at <= s.state_at",
        ),
        GUARDS + "test_a_failure_leaves_what_the_last_proven_list_said": (
            "when state = 'verified' then",
            "coalesce(excluded.objects, f.objects)",
            "coalesce(excluded.verified_at, f.verified_at)",
        ),
        "hasty": ("on conflict (unit_id, reach) do update",),
        "overtaken floor": ("where f.state_at <= excluded.state_at",),
    },
    "raise_floors": {
        "together": (
            "where list = any ($1::uuid[])",
            "order by unit_id, reach, epoch desc, live_at desc, completed_at desc",
        ),
        "narrow": (
            "where f.unit_id = v.unit_id",
            "and f.reach = v.reach",
        ),
        "overtaken floor": ("and (v.epoch, v.live_at) > (f.epoch, f.live_at)",),
    },
    "drop_covered": {
        "overtaken floor": (
            "where v.list = any ($1::uuid[])",
            "and (p.epoch, p.live_at) <= (v.epoch, v.live_at)",
        ),
        "narrow": (
            "and p.unit_id = v.unit_id",
            "and p.reach = v.reach",
            "and p.list <> v.list",
            "and w.unit_id = v.unit_id",
            "and w.reach = ''",
            "and f.unit_id = v.unit_id",
            "and f.reach <> ''",
        ),
        "shuffled": (
            "where v.list = any ($2::uuid[])",
            "and v.reach = ''",
            "and f.state_at <= w.proven_at",
        ),
        "together": ("and (f.epoch, f.live_at) <= (w.epoch, w.live_at)",),
        SEEN + "test_a_list_that_proves_nothing_yet_drops_no_entry": ("where v.list = any ($2)",),
        SEEN + "test_a_list_of_another_kind_drops_no_entry": ("and s.unit_id = v.unit_id",),
        SEEN + "test_a_list_of_another_namespace_drops_no_entry": ("and v.reach in ('', s.reach)",),
        SEEN + "test_a_deletion_that_a_list_refutes_is_older[True]": (
            "and (s.epoch, s.live_at) < (v.epoch, v.live_at)",
        ),
        SEEN + "test_what_was_seen_later_at_an_older_version_is_not_forgotten[False]": (
            "and s.seen_at <= list_began_at(v.list, v.completed_at)",
        ),
        SEEN + "test_of_two_lists_that_one_batch_proves_the_overtaken_leaves_no_entry": (
            "and s.ctid <> all (array(...))",
        ),
    },
    "trim_seen": {
        SEEN + "test_what_was_seen_later_at_an_older_version_is_not_forgotten[True]": ("and l.seen_at >= e.seen_at",),
        SEEN + "test_an_entry_gives_up_what_a_later_list_named": (
            "and (l.epoch, l.live_at) > (e.epoch, e.live_at)",
            "where o.ctid = n.at",
        ),
    },
    "drop_trimmed": {
        SEEN + "test_an_entry_gives_up_what_a_later_list_named": ("and isempty(ids)",),
    },
    "drop_progress": {
        GUARDS + "test_a_list_that_failed_leaves_another_of_its_kind_under_way": ("where list = any ($1::uuid[])",),
        OWNERS + "test_the_ids_of_anothers_list_and_snapshot_change_nothing_of_it": (
            "and unit_id = any ($2::bigint[])",
        ),
    },
    "stage_elements": {
        "shuffled": (
            "where w.unit_id = r.unit_id",
            "and w.namespace = r.namespace",
            "and w.name = r.name",
            "where case when s.unit_id is null then r.seen_at >= u.gone_before and not exists (...) when ...",
            "when s.unit_id is null then",
            "and not exists (...)",
            "where f.unit_id = r.unit_id",
            "and (f.epoch, f.live_at) >= (r.epoch, r.live_at)",
            "when (r.epoch, r.live_at) > (s.epoch, s.live_at) then",
            "when (r.epoch, r.live_at) = (s.epoch, s.live_at) and r.resource_version = s.resource_version ...",
            "when (r.epoch, r.live_at) = (s.epoch, s.live_at)",
            "and r.resource_version = s.resource_version #2",
            "r.epoch = s.epoch and",
            "s.fidelity in (0, 2) and",
        ),
        GUARDS + "test_a_list_of_another_namespace_hides_nothing[2]": ("and f.reach in ('', r.namespace)",),
        GUARDS + "test_of_two_versions_as_of_one_moment_the_first_stays[2]": (
            "and r.resource_version = s.resource_version",
            "and r.deleted = s.deleted",
        ),
        GUARDS + "test_an_older_sighting_in_no_better_shape_is_no_sighting[2]": (
            "and (r.normalization, r.fidelity) > (s.normalization, s.fidelity)",
        ),
        DECISIONS + "test_a_chain_is_of_what_is_stored_and_of_what_is_not_older": (
            "on u.id = r.unit_id",
            "r.seen_at >= u.gone_before and",
            "and not r.deleted",
            "and not s.deleted",
            "and not (s.fidelity in (0, 2) and r.normalization = s.normalization and r.content_hash = ...",
            "and r.normalization = s.normalization",
            "and r.content_hash = s.content_hash",
            "where w.unit_id = c.unit_id",
            "and w.namespace = c.namespace",
            "and w.name = c.name",
        ),
    },
    "link_elements": {
        "shuffled": (
            "and resource_version = lag(resource_version) over chain",
            "epoch = lag(epoch) over chain and",
            "and not deleted",
            "uid = lag(uid) over chain and",
            "content_hash = lag(content_hash) over chain and",
            "or uid = lag(uid) over chain",
            "and normalization = lag(normalization) over chain",
            "and (fidelity <= lag(fidelity) over chain or lag(fidelity) over chain in (0, 2))",
            "where not same_version",
            "or same_content",
            "same_version or",
            "where not (same_life or deleted and same_version)",
            "same_life or",
            "and same_body",
            "same_version and",
            "order by epoch, live_at, ord #2",
        ),
        "crowded": (
            "coalesce(uid = lag(uid) over chain and not deleted and not lag(deleted) over chain, false)",
            "order by epoch, live_at, ord",
            "where not (same_version or same_content)",
        ),
        DECISIONS + "test_elements_of_a_chain_are_linked": (
            "and deleted = lag(deleted) over chain",
            "and not lag(deleted) over chain",
            "and deleted = lag(deleted) over chain #2",
            "and (deleted or uid = lag(uid) over chain)",
            "deleted or",
            "content_hash = lag(content_hash) over chain and #2",
            "or lag(fidelity) over chain in (0, 2)",
            "fidelity <= lag(fidelity) over chain or",
            "or deleted and same_version",
            "and same_version",
            "deleted and",
            "where not (same_version and same_body)",
            "coalesce(epoch = lag(epoch) over chain and resource_version = lag(resource_version) over ...",
            "coalesce(content_hash = lag(content_hash) over chain and deleted = lag(deleted) over chain ...",
        ),
    },
    "describe_runs": {
        "shuffled": (
            "order by epoch, live_at, ord",
            "order by epoch, live_at, ord #2",
            "when ord = -1 then",
            "order by origin_normalization desc, origin_fidelity desc, epoch desc, live_at desc, ...",
            "order by (ord <> -1), epoch, live_at, ord",
        ),
        "crowded": ("where next_run_no is distinct from run_no",),
        DECISIONS + "test_a_run_is_dated_by_the_first_that_shows_it": (
            "order by epoch, live_at, ord #3",
            "when deleted then",
        ),
    },
    "plan_rows": {
        "shuffled": (
            "order by run_no",
            "order by run_no #2",
            "when next_is_another_life and not next_deleted then",
            "greatest(starts_at, coalesce((...), next_starts_at))",
            "coalesce((...), next_starts_at)",
            "coalesce(p.seen_at, list_began_at(p.list, p.completed_at))",
            "where p.list = any ($1::uuid[])",
            "and (p.epoch, p.live_at) > (f.epoch, f.live_at)",
            "and (p.epoch, p.live_at) < (f.next_epoch, f.next_live_at)",
        ),
        GUARDS + "test_an_object_that_a_slow_list_showed_was_there_until_then[True]": (
            "greatest(starts_at, coalesce((...), next_starts_at)) #2",
        ),
        GUARDS + "test_only_lists_that_should_have_named_it_show_that_an_object_was_gone": (
            "and p.unit_id = f.unit_id",
            "and p.reach in ('', f.namespace)",
        ),
        GUARDS + "test_what_a_batch_says_of_an_object_goes_before_a_list_that_does_not_name_it[changed]": (
            "when next_is_another_life",
        ),
        GUARDS + "test_what_a_batch_says_of_an_object_goes_before_a_list_that_does_not_name_it[deleted]": (
            "and not next_deleted",
        ),
    },
    "read_plan": {
        "crowded": ("coalesce(array_agg(distinct body_ord) filter (where body_ord >= 0), '{}')",),
        GUARDS + "test_what_became_of_objects_shown_more_than_once_is_reported": (
            "where body_ord >= 0",
            "where valid_to is null",
            "and body_ord <> -1",
            "where valid_to is null #2",
            "and body_ord = -1",
            "where valid_to is not null",
            "and not deleted",
        ),
    },
    "replan": {
        "shuffled": ("where r.ord = l.ord",),
    },
    "apply_plan": {
        "shuffled": (
            "when p.body_ord = -1 then",
            "on b.ord = p.body_ord",
            "and s.unit_id = p.unit_id",
            "and s.namespace = p.namespace",
            "and s.name = p.name",
            "and not p.deleted",
            "and s.unit_id = p.unit_id #2",
            "and s.namespace = p.namespace #2",
            "and s.name = p.name #2",
            "on b.ord = p.body_ord #2",
            "where p.valid_to is null #2",
            "on conflict (unit_id, namespace, name) do update",
        ),
        "crowded": (
            "where p.valid_to is not null",
            "and p.body_ord <> -1",
        ),
        GUARDS + "test_history_keeps_the_bytes_as_they_came[2]": ("when p.body_ord = -1 then #2",),
        GUARDS + "test_history_keeps_who_wrote_each_version[2]": (
            "when p.body_ord = -1 then #3",
            "when p.body_ord = -1 then #4",
            "when p.body_ord = -1 then #5",
            "when p.body_ord = -1 then #6",
        ),
    },
    "merge_rows": {
        "stubbed": (
            "when s.unit_id is null then",
            "when (t.epoch, t.live_at) > (s.epoch, p.live_at) then",
            "where r.unit_id = t.unit_id",
            "and r.name = t.name",
            "and s.ctid = c.at",
            "where c.class in ('replaced', 'changed', 'deleted', 'reborn')",
        ),
        "abolished": ("when t.seen_at >= l.gone_before",),
        "narrow": (
            "on f.unit_id = u.id",
            "when t.seen_at >= l.gone_before and not coalesce((l.epoch, l.live_at) >= (t.epoch, ...",
            "coalesce((l.epoch, l.live_at) >= (t.epoch, t.live_at), false)",
        ),
        "together": ("and f.reach = ''",),
        "resurrected": (
            "and not coalesce((l.epoch, l.live_at) >= (t.epoch, t.live_at), false)",
            "and not (l.has_reaches and exists (...))",
        ),
        DECISIONS + "test_an_object_is_new_above_the_floors_that_cover_it": (
            "and exists (...)",
            "where f.unit_id = t.unit_id",
            "and f.reach = t.namespace",
            "and (f.epoch, f.live_at) >= (t.epoch, t.live_at)",
        ),
        "singly": (
            "when same_version",
            "and (same_body or (t.normalization, t.fidelity) < (s.normalization, s.fidelity))",
            "when same_version then",
            "when t.deleted then",
            "when t.uid <> s.uid then",
            "when t.content_hash = s.content_hash then",
            "when (t.epoch, t.live_at) = (s.epoch, p.live_at) then",
            "when not same_body then",
            "when not t.deleted and (t.normalization, t.fidelity) > (s.normalization, s.fidelity) and not ...",
            "and r.namespace = t.namespace",
            "and t.resource_version = s.resource_version",
            "t.epoch = s.epoch and",
            "and t.normalization = s.normalization",
            "and (t.fidelity <= s.fidelity or s.fidelity in (0, 2))",
            "when 'replaced' then",
            "greatest(c.last_observed_at, c.seen_at) #3",
        ),
        GUARDS + "test_what_a_slow_list_shows_later_counts_from_what_was_known[1]": (
            "greatest(s.last_observed_at, max(l.seen_at)) #2",
            "greatest(valid_from, observed_at) #2",
            "greatest(c.valid_from, c.observed_at) #2",
            "greatest(c.last_observed_at, c.seen_at) #4",
        ),
        "superseded": ("where c.class = 'seen'",),
        "crowded": (
            "on l.id = t.unit_id",
            "and s.ctid = c.at #2",
            "greatest(valid_from, observed_at)",
        ),
        GUARDS + "test_an_object_is_first_observed_when_its_uid_was[1]": (
            "when class = 'changed' then",
            "least(first_observed_at, observed_at)",
            "least(c.first_observed_at, c.observed_at)",
        ),
        "shuffled": (
            "where class in ('changed', 'deleted')",
            "when 'replaced' then #2",
            "greatest(c.valid_from, c.observed_at)",
        ),
        SEEN + "test_a_deletion_that_a_list_refutes_is_older[True]": ("greatest(s.live_at, max(l.live_at))",),
        SEEN + "test_a_change_of_what_another_was_named_with_is_not": (
            "where class = 'listed'",
            "and l.ids @> s.id",
            "greatest(s.live_at, max(l.live_at)) #2",
        ),
        SEEN + "test_a_list_of_a_lower_epoch_says_nothing_of_a_row_that_was_seen_since": ("and l.epoch = s.epoch",),
        SEEN + "test_what_replaces_a_row_was_observed_when_a_list_named_it": (
            "greatest(s.last_observed_at, max(l.seen_at))",
        ),
        SEEN + "test_what_is_shown_with_less_of_it_moves_the_row": (
            "greatest(c.last_observed_at, c.seen_at)",
            "greatest(c.last_observed_at, c.seen_at) #2",
        ),
        DECISIONS + "test_each_object_falls_to_its_class": (
            "when is_listed then",
            "when t.seen_at > p.last_observed_at then",
            "t.reach is not null and",
            "and same_version",
            "and same_body",
            "and (t.epoch, t.live_at) >= (s.epoch, s.live_at)",
            "when same_version and (same_body or (t.normalization, t.fidelity) < (s.normalization, ...",
            "or (t.normalization, t.fidelity) < (s.normalization, s.fidelity)",
            "same_body or",
            "when same_version and not (t.normalization > s.normalization and t.uid = s.uid and not ...",
            "when same_version #2",
            "and not (t.normalization > s.normalization and t.uid = s.uid and not t.deleted)",
            "and t.uid = s.uid",
            "t.normalization > s.normalization and",
            "and not t.deleted",
            "when s.deleted then",
            "when s.deleted then #2",
            "when not same_version then",
            "when not t.deleted",
            "and (t.normalization, t.fidelity) > (s.normalization, s.fidelity)",
            "and not same_body",
            "and t.deleted = s.deleted",
            "t.content_hash = s.content_hash and",
            "or s.fidelity in (0, 2)",
            "t.fidelity <= s.fidelity or",
        ),
        DECISIONS + "test_what_replaces_a_row_is_told_its_times[later]": (
            "least(first_observed_at, observed_at) #2",
            "where c.class not in ('listed', 'seen', 'known')",
            "when c.class in ('replaced', 'changed') then",
            "least(c.first_observed_at, c.observed_at) #2",
            "where c.class in ('replaced', 'changed', 'deleted', 'reborn') #2",
        ),
    },
    "update_cluster": {
        "belated": (
            "greatest(last_seen, $2)",
            "greatest(last_seen, $2) #2",
            "least(first_seen, $2) #2",
        ),
        GUARDS + "test_an_older_snapshot_lowers_what_was_first_and_nothing_else": (
            "least(first_seen, $2)",
            "greatest(epoch, $3)",
            "greatest(epoch, $3) #2",
        ),
        GUARDS + "test_the_newest_snapshot_that_knows_it_says_the_servers_version": (
            "when $2 >= last_seen then",
            "coalesce($4, server_version)",
            "where id = $1",
        ),
    },
    "start_snapshot": {
        GUARDS + "test_a_snapshot_began_in_the_past_whatever_its_clock_says[False]": ("least($3, now())",),
        "belated": (
            "least($3, now()) #2",
            "on conflict (id) do nothing",
        ),
    },
    "complete_snapshot": {
        GUARDS + "test_a_snapshot_began_in_the_past_whatever_its_clock_says[True]": ("least($3, now())",),
        "belated": (
            "least($3, now()) #2",
            "on conflict (id) do update",
        ),
        OWNERS + "test_the_ids_of_anothers_list_and_snapshot_change_nothing_of_it": (
            "where snapshot.cluster_id = excluded.cluster_id",
        ),
    },
    "exclude_units": {
        GUARDS + "test_a_kind_is_excluded_and_not_its_namesakes": (
            "where u.cluster_id = $1",
            "and u.api_group = x.api_group",
            "and x.resource in (u.resource, '*')",
        ),
        GUARDS + "test_an_older_snapshot_excludes_nothing_that_was_stated_since": (
            "and u.state_at <= $4",
            "where f.unit_id = u.id",
            "and f.state_at > $4",
        ),
        "belated": ("and not exists (...)",),
    },
    "fail_groups": {
        GUARDS + "test_kinds_of_a_group_fail_and_not_their_namesakes": (
            "on u.api_group = g.api_group",
            "where u.cluster_id = $1",
            "and u.state is null",
            "and not exists (...)",
            "where x.api_group = u.api_group",
            "and x.resource = u.resource",
            "where f.unit_id = failed.id",
        ),
        GUARDS + "test_an_older_snapshot_fails_nothing_that_was_stated_since": ("and f.state_at <= $6",),
    },
    "find_gone": {
        GUARDS + "test_an_older_discovery_ends_nothing_that_was_stated_since": ("u.state_at < $5 and",),
        "belated": (
            "and not exists (...)",
            "and not exists (...) #2",
            "where u.id = n.id",
        ),
        GUARDS + "test_a_kind_is_gone_and_not_its_namesakes": (
            "where f.unit_id = u.id",
            "and f.state_at >= $5",
            "where u.cluster_id = $1",
            "where u.api_group = x.api_group",
            "and x.resource in (u.resource, '*')",
        ),
        "abolished": (
            "when n.is_gone then",
            "when n.is_gone then #2",
        ),
        GUARDS + "test_an_older_discovery_lets_nothing_come_back": (
            "greatest(u.gone_before, $5)",
            "greatest(u.gone_before, $5) #2",
        ),
    },
    "remember_discovery": {
        "belated": (
            "greatest(discovered_before, $2)",
            "greatest(discovered_before, $2) #2",
            "where id = $1",
        ),
    },
    "ensure_units": {
        GUARDS + "test_a_kind_first_heard_of_late_was_gone": ("when c.discovered_before > '-infinity' then",),
        "abolished": ("on c.id = u.cluster_id",),
        "founded": ("on conflict (cluster_id, api_group, resource) do nothing",),
    },
    "lock_units": {
        LOCKS + "test_no_unit_is_held_while_another_is_made": ("where cardinality($1) = (...)",),
        LOCKS + "test_a_batch_waits_for_its_first_unit_and_holds_none": ("order by u.id",),
        "crowded": ("for update of u",),
        FOLLOWING + "test_a_list_corrects_only_what_is_followed[another]": ("where c.unit_id = u.id",),
        FOLLOWING + "test_a_list_corrects_only_what_is_followed[over]": ("and c.is_open",),
        FOLLOWING + "test_each_partition_and_each_session_counts_for_itself": (
            "where (w.kafka_cluster, w.topic, w.partition, w.cluster, w.session) = ($4, $5, $6, ...",
        ),
        FOLLOWING + "test_what_comes_too_late_of_a_kind_that_was_never_heard_of_cuts_as_well": (
            "where cardinality($1) = (...) #2",
        ),
        FOLLOWING + "test_two_batches_of_one_session_take_turns[True]": ("for update",),
        FOLLOWING + "test_a_number_that_is_due_moves_no_other_session": ("where s.id = t.id",),
    },
    "lock_completed": {
        LOCKS + "test_a_completed_snapshot_waits_for_no_kind_that_it_is_not_about": (
            "where u.cluster_id = any ($1::bigint[])",
            "where (u.cluster_id, u.api_group, u.resource) = (wanted.cluster_id, wanted.api_group, ...",
        ),
        LOCKS + "test_a_completed_snapshot_and_kinds_of_another_cluster_are_locked_in_one_order": ("or exists (...)",),
        SINK + "test_a_completed_snapshot_waits_for_its_kinds_while_it_holds_no_later_one": (
            "u.cluster_id = any ($1::bigint[]) or",
            "for update of u",
        ),
        LOCKS + "test_a_completed_snapshot_waits_for_its_first_unit_and_holds_none": ("order by u.id",),
    },
    "describe_units": {
        GUARDS + "test_lists_of_other_kinds_go_on_when_one_is_ordered_by_the_clock": (
            "where p.unit_id = d.id",
            "or d.by_clock",
            "where u.id = d.id",
        ),
        GUARDS + "test_a_list_under_way_goes_on_when_its_kind_is_described_anew[version]": ("and d.by_clock",),
        GUARDS + "test_a_list_under_way_goes_on_when_its_kind_is_described_anew[clock]": ("and not u.by_clock",),
        GUARDS + "test_what_a_record_does_not_say_of_its_kind_stays_known": (
            "coalesce(nullif(d.kind, ''), u.kind)",
            "nullif(d.kind, '')",
            "coalesce(nullif(d.api_version, ''), u.api_version)",
            "nullif(d.api_version, '')",
            "coalesce(d.namespaced, u.namespaced)",
        ),
        GUARDS + "test_a_kind_stays_ordered_by_the_clock": ("u.by_clock or",),
    },
    "admit": {
        GUARDS + "test_a_snapshot_written_without_kafka_has_no_position": ("where $1 is not null",),
        "usurped": ("where o.generation = excluded.generation",),
        "unanswered": (
            "and coalesce(o.next_offset, $5::bigint) = $5",
            "coalesce(o.next_offset, $5::bigint)",
        ),
    },
    "read_offset": {
        GUARDS + "test_a_lane_is_told_where_it_stands_not_where_others_do": (
            "where kafka_cluster = $1",
            "and topic = $2",
            "and partition = $3",
        ),
    },
    "claim_partition": {
        SINK + "test_a_second_consumer_group_is_refused": ("where not exists (...)",),
        GUARDS + "test_a_lane_is_told_where_it_stands_not_where_others_do": ("where group_id <> $4",),
        GUARDS + "test_lists_written_without_kafka_belong_to_no_group_and_no_topic": ("and kafka_cluster <> ''",),
        "usurped": ("on conflict (kafka_cluster, topic, partition) do update",),
        GUARDS + "test_of_two_groups_that_come_first_at_once_one_is_refused": ("where o.group_id = $4",),
    },
    "find_other_group": {
        GUARDS + "test_lists_written_without_kafka_belong_to_no_group_and_no_topic": ("and kafka_cluster <> ''",),
        GUARDS + "test_topics_are_told_in_order_each_once": ("order by topic",),
    },
    "stored_topics": {
        GUARDS + "test_lists_written_without_kafka_belong_to_no_group_and_no_topic": ("where kafka_cluster <> ''",),
        GUARDS + "test_topics_are_told_in_order_each_once": ("order by topic",),
    },
    "forget_offsets": {
        GUARDS + "test_topics_are_told_in_order_each_once": ("where topic = $1",),
        GUARDS + "test_lists_written_without_kafka_belong_to_no_group_and_no_topic": ("and kafka_cluster <> ''",),
    },
    "carry_units": {
        "usurped": ("on conflict do nothing",),
    },
    "lock_carried_units": {
        GUARDS + "test_a_gap_waits_for_nothing_that_other_lanes_carry[partitions]": (
            "on p.unit_id = u.id",
            "and p.partition = $3",
        ),
        GUARDS + "test_a_gap_waits_for_nothing_that_other_lanes_carry[kafkas]": ("and p.kafka_cluster = $1",),
        GUARDS + "test_a_gap_waits_for_nothing_that_other_lanes_carry[topics]": ("and p.topic = $2",),
        LOCKS + "test_a_gap_waits_for_the_first_unit_of_its_partition_and_holds_none": (
            "order by u.id",
            "for update of u",
        ),
    },
    "unverify_carried_units": {
        GUARDS + "test_a_gap_leaves_what_other_lanes_carry_and_what_is_newer_or_has_failed": (
            "where p.kafka_cluster = $1",
            "and p.topic = $2",
            "and p.partition = $3",
            "where f.unit_id = c.unit_id",
            "and f.state = 'verified'",
            "and f.state_at <= $4",
        ),
        OWNERS + "test_a_gap_marks_nothing_that_the_topic_lost": (
            "on u.id = p.unit_id",
            "on c.id = u.cluster_id",
            "and c.topic = $2",
        ),
    },
    "name_sessions": {
        FOLLOWING + "test_a_list_that_raises_no_floor_is_followed[True]": (
            "where (p.list, p.unit_id) = (t.list, t.unit_id)",
        ),
    },
    "find_openings": {
        FOLLOWING + "test_what_a_list_again_corrects_is_drift_and_was_not_followed": (
            "where (f.unit_id, f.reach) = (p.unit_id, p.reach)",
        ),
        FOLLOWING + "test_only_a_list_begun_after_the_mark_is_followed[4]": (
            "or list_began_at(p.list, p.completed_at) <= u.unverified_at",
            "on u.id = p.unit_id",
        ),
        FOLLOWING + "test_what_is_watched_of_a_kind_that_the_clock_orders_is_ignored": ("u.by_clock or",),
        FOLLOWING + "test_a_hole_of_one_session_breaks_no_list_of_another": ("on s.id = p.session_id",),
    },
    "note_corrections": {
        FOLLOWING + "test_what_a_list_again_corrects_is_drift_and_was_not_followed": ("where p.list = t.list",),
    },
    "take_back_coverage": {
        FOLLOWING + "test_what_a_list_again_corrects_is_drift_and_was_not_followed": (
            "where (session_id, unit_id, reach) = ($1, $2, $3)",
            "and (begins_at >= $4) is not false",
            "where (session_id, unit_id, reach) = ($1, $2, $3) #2",
            "and (ends_at <= $4) is not true",
        ),
    },
    "open_coverage": {
        FOLLOWING + "test_a_list_again_begins_no_second_interval": (
            "on conflict (unit_id, reach, session_id) where is_open do update",
            "where c.begins_at is null",
        ),
    },
    "find_followed_by": {
        FOLLOWING + "test_one_session_goes_on_when_another_ends": ("where f.session_id = any ($1::bigint[])",),
    },
    "find_followed_units": {
        FOLLOWING + "test_a_kind_marked_unverified_ends_no_other": ("where f.unit_id = any ($1::bigint[])",),
    },
    "close_coverage": {
        FOLLOWING + "test_an_end_closes_its_own_kinds_reaches_and_sessions": ("where c.id = t.id",),
    },
    "drop_coverage": {
        FOLLOWING + "test_a_kind_marked_unverified_ends_no_other": ("where id = any ($1::bigint[])",),
    },
    "begin_coverage": {
        FOLLOWING + "test_what_comes_too_late_to_be_kept_cuts_an_interval[False-1]": ("where id = any ($1::bigint[])",),
    },
    "mark_units_unverified": {
        FOLLOWING + "test_only_a_list_begun_after_the_mark_is_followed[4]": ("greatest(unverified_at, $2)",),
        FOLLOWING + "test_an_older_mark_takes_no_newer_one_back": ("greatest(unverified_at, $2) #2",),
        FOLLOWING + "test_a_kind_marked_unverified_ends_no_other": ("where id = any ($1::bigint[])",),
    },
    "find_unkept": {
        FOLLOWING + "test_what_comes_too_late_to_be_kept_cuts_an_interval[True-1]": ("where not exists (...)",),
        FOLLOWING + "test_what_comes_too_late_to_be_kept_cuts_an_interval[False-1]": (
            "where (r.unit_id, r.namespace, r.name, r.epoch, r.resource_version, r.deleted) = (t.unit_id, ...",
            "where (h.unit_id, h.namespace, h.name, h.epoch, h.resource_version, false) = (t.unit_id, ...",
        ),
    },
    "find_ignored": {
        FOLLOWING + "test_of_objects_shown_more_than_once_those_that_come_too_late_cut[True]": (
            "where not exists (...)",
        ),
        FOLLOWING + "test_of_objects_shown_more_than_once_those_that_come_too_late_cut[False]": (
            "where e.ord = r.ord",
        ),
    },
    "make_sessions": {
        FOLLOWING + "test_two_batches_of_one_session_take_turns[False]": (
            "on conflict (kafka_cluster, topic, partition, cluster, session) do nothing",
        ),
    },
    "save_sessions": {
        FOLLOWING + "test_each_partition_and_each_session_counts_for_itself": ("where s.id = t.id",),
    },
    "mark_sessions_unverified": {
        FOLLOWING + "test_a_gap_marks_nothing_that_is_said_on_other_partitions": (
            "where (kafka_cluster, topic, partition) = ($1, $2, $3)",
        ),
    },
}
"""Statement -> scene or test -> the guards that it misses."""

UNMISSED: Mapping[str, Mapping[str, str]] = {
    "bury": {
        "where l.unit_id = t.unit_id": "no row of another kind has such an id",
    },
    "drop_covered": {
        "where v.list = any ($2) #2": "it divides more entries again than it has to",
        "and s.unit_id = v.unit_id #2": "it divides more entries again than it has to",
        "and s.reach = v.reach": "it divides more entries again than it has to",
        "and (s.epoch, s.live_at) = (v.epoch, v.live_at)": "it divides more entries again than it has to",
        "order by r.ids": "cut in any order, entries hold the same; looking an id up takes longer",
    },
    "trim_seen": {
        "on l.unit_id = e.unit_id": "no row of another kind has such an id",
        "and l.ids && e.ids": "it spares taking away what is not there",
        "where e.unit_id = any ($1::bigint[])": "it looks at more kinds than it has to",
    },
    "drop_trimmed": {
        "where unit_id = any ($1::bigint[])": "it looks at more kinds than it has to",
    },
    "take_back_coverage": {
        "and begins_at < $4": "what begins later is deleted by the same statement",
    },
    "find_openings": {
        "where p.list = any ($1::uuid[])": "it reads more lists than it has to",
    },
    "open_coverage": {
        "where is_open do update": "without it there is no such index",
    },
    "find_backwards": {
        "and (r.epoch, r.live_at) > (v.epoch, v.live_at)": "it spares sorting what is older, which refutes nothing",
    },
    "lock_units": {
        "and t.next_number = t.first_number": "of a session whose number was not due all is written afterwards",
        "on s.place = u.place": "units and sessions are two lists in one answer, which none compares",
    },
    "find_clusters": {
        "where uid = any ($1::text[])": "it reads more clusters than it has to",
    },
    "contest_cluster": {
        "order by name": "`distinct` sorts them as well",
        "and (named.names is not null or c.contested_at is not null)": "it spares an update that changes nothing",
    },
    "find_overtaken": {
        "where p.list = any ($1::uuid[])": "it reads more lists than it has to",
    },
    "find_stalled_versions": {
        "and not u.by_clock": "no two lists begin at one microsecond",
    },
    "set_states": {
        "and u.state is not null": "it spares an update that changes nothing",
        "order by unit_id, reach": "nobody else writes floors of units that are locked",
    },
    "apply_plan": {
        "on p.body_ord = -1": "what is joined is read of the stored body alone",
        "where p.valid_to is null": "the statement after it writes such rows whole",
        "and p.body_ord = -1": "the statement after it writes such rows whole",
    },
    "merge_rows": {
        "limit 1": "it is one by its key",
        "where u.id = any (array(...))": "it reads more than it has to",
        "where n.unit_id = u.id": "it spares a look-up",
        "and n.reach <> ''": "it spares a look-up",
        "l.has_reaches and": "it spares a look-up",
        "where is_listed is not true": "it spares a look-up",
        "order by id": "what is near by id stands together, which is found sooner",
    },
    "ensure_units": {
        "order by 1, 2, 3": "an insert follows the order of its arrays",
    },
    "admit": {
        "on conflict (kafka_cluster, topic, partition) do update": "without it a parameter has no type",
        "where f.cluster = any ($7::text[])": "it reads more than it has to",
        "where c.uid = any ($7)": "it reads more than it has to",
    },
    "find_other_group": {
        "where group_id <> $1": "a database has positions of one group",
        "limit 1": "one row is read of it",
    },
    "carry_units": {
        "order by 1": "nobody else writes rows of a partition whose position is locked",
    },
}
"""Statement -> guard -> why nothing that is stored differs without it."""
