{{/* (dict "root" $ "component" "collector"): what selectors select by, for ever. */}}
{{- define "selector" -}}
app.kubernetes.io/name: clusterinfo
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: clusterinfo
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* (dict "root" $ "name" "collector"): the name, namespace and labels of an object; `component` if it has one. */}}
{{- define "metadata" -}}
name: {{ .root.Release.Name }}{{ with .name }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "labels" . | nindent 2 }}
{{- end }}

{{/* Not empty where collectors elect who works: several are started. */}}
{{- define "elects" -}}
{{- with .Values.collector }}
{{- if and .enabled (empty .schedule) (gt (int .replicas) 1) }}true{{ end }}
{{- end }}
{{- end }}

{{- define "image" -}}
image: {{ .repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end }}

{{/* Of every Pod. */}}
{{- define "pod" -}}
# Without it a Service called `db` would set DB_PORT to tcp://...
enableServiceLinks: false
# Longer than SHUTDOWN_GRACE_S (25 s).
terminationGracePeriodSeconds: 30
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with .podSpec }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of every container. */}}
{{- define "locked" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Of a Deployment's container: readiness fails while Kafka is away, liveness does not. */}}
{{- define "served" -}}
ports:
  - name: http
    containerPort: 8080
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 24
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
{{- end }}

{{/* (dict "root" $ "database" NAME-OF-SECRET "kafka" NAME-OF-SECRET "extra" LIST): env, volumeMounts of a container. */}}
{{- define "env" -}}
{{- $mounted := and .database .root.Values.database.mounted }}
{{- if or .database .kafka .extra }}
env:
  {{- if $mounted }}
  - name: DB_USER
    valueFrom: {secretKeyRef: {name: {{ .database }}, key: username}}
  {{- else if .database }}
  - name: DB_PASSWORD
    valueFrom: {secretKeyRef: {name: {{ .database }}, key: password}}
  {{- end }}
  {{- with .kafka }}
  - name: KAFKA_SASL_USERNAME
    valueFrom: {secretKeyRef: {name: {{ . }}, key: username}}
  {{- end }}
  {{- with .extra }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- if or $mounted .kafka }}
volumeMounts:
  {{- if .kafka }}
  - {name: kafka, mountPath: /etc/clusterinfo/kafka, readOnly: true}
  {{- end }}
  {{- if $mounted }}
  - {name: postgres, mountPath: /etc/clusterinfo/postgres, readOnly: true}
  {{- end }}
{{- end }}
{{- end }}

{{/* The same: volumes of its Pod. */}}
{{- define "volumes" -}}
{{- $mounted := and .database .root.Values.database.mounted }}
{{- if or $mounted .kafka }}
volumes:
  {{- with .kafka }}
  - {name: kafka, secret: {secretName: {{ . }}}}
  {{- end }}
  {{- if $mounted }}
  - {name: postgres, secret: {secretName: {{ .database }}}}
  {{- end }}
{{- end }}
{{- end }}
