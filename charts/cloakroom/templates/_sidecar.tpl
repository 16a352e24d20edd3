{{/*
All that a pod's spec needs for the sidecar, in one line, where the pod has no init containers and volumes of its own:

    spec:
      {{- include "cloakroom.sidecar" . | nindent 6 }}
      containers: ...

With its own, it includes the items of the two lists:

      initContainers:
        {{- include "cloakroom.initContainers" . | nindent 8 }}
      volumes:
        {{- include "cloakroom.volumes" . | nindent 8 }}

The pod's labels include "cloakroom.podLabels", by which the NetworkPolicy finds it.
*/}}
{{- define "cloakroom.sidecar" -}}
initContainers:
  {{- include "cloakroom.initContainers" . | nindent 2 }}
volumes:
  {{- include "cloakroom.volumes" . | nindent 2 }}
{{- end }}

{{- define "cloakroom.native" -}}
{{- $values := include "cloakroom.values" . | fromJson -}}
{{- $able := semverCompare ">=1.29.0-0" (include "cloakroom.kubeVersion" .) -}}
{{- if and (eq $values.sidecar.mode "native") (not $able) }}{{ fail "sidecar.mode: native sidecars need Kubernetes 1.29 or later" }}{{ end -}}
{{- if and $able (ne $values.sidecar.mode "classic") }}true{{ end }}
{{- end }}

{{- define "cloakroom.initContainers" -}}
{{- $values := include "cloakroom.values" . | fromJson -}}
{{- $sidecar := dict "root" . "values" $values "upstream" $values.sidecar.upstream "portName" $values.sidecar.portName -}}
{{- if $values.check }}
{{ include "cloakroom.checkContainer" $sidecar }}
{{- end }}
{{- if include "cloakroom.native" . }}
{{ include "cloakroom.container" (set $sidecar "native" true) }}
{{- end }}
{{- end }}

{{/* Before native sidecars: an item of the pod's containers. */}}
{{- define "cloakroom.classicContainer" -}}
{{- $values := include "cloakroom.values" . | fromJson -}}
{{- if not (include "cloakroom.native" .) }}
{{- include "cloakroom.container" (dict "root" . "values" $values "upstream" $values.sidecar.upstream "portName" $values.sidecar.portName) }}
{{- end }}
{{- end }}

{{/* The one container, of a sidecar and of the gateway. */}}
{{- define "cloakroom.container" -}}
- name: cloakroom
  {{- include "cloakroom.base" (merge (dict "arguments" (list "run")) .) | nindent 2 }}
  ports:
    - { name: {{ .portName }}, containerPort: {{ int64 .values.ports.proxy }}, protocol: TCP }
    - { name: cr-status, containerPort: {{ int64 .values.ports.status }}, protocol: TCP }
  startupProbe:
    httpGet: { path: /readyz, port: {{ int64 .values.ports.status }} }
    periodSeconds: 1
    failureThreshold: 60
  readinessProbe:
    httpGet: { path: /readyz, port: {{ int64 .values.ports.status }} }
    periodSeconds: 5
    failureThreshold: 2
  livenessProbe:
    httpGet: { path: /healthz, port: {{ int64 .values.ports.status }} }
    periodSeconds: 10
    failureThreshold: 3
  {{- if .native }}
  restartPolicy: Always
  {{- end }}
{{- end }}

{{- define "cloakroom.checkContainer" -}}
- name: cloakroom-check
  {{- include "cloakroom.base" (merge (dict "arguments" (list "check" "--serves" (toString (int64 .values.ports.proxy)))) .) | nindent 2 }}
{{- end }}

{{- define "cloakroom.base" -}}
{{- $values := .values -}}
image: {{ include "cloakroom.image" .root }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: {{ toJson .arguments }}
env:
  - { name: CLOAKROOM_CONFIG, value: /etc/cloakroom/cloakroom.yaml }
  - { name: CLOAKROOM_LISTEN, value: "0.0.0.0:{{ int64 $values.ports.proxy }}" }
  {{- with .upstream }}
  - { name: CLOAKROOM_UPSTREAM, value: {{ . | quote }} }
  {{- end }}
  - { name: CLOAKROOM_LOG_LEVEL, value: {{ $values.logLevel | quote }} }
  {{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources: {{- toYaml $values.resources | nindent 2 }}
securityContext: {{- include "cloakroom.securityContext" $values.user | nindent 2 }}
volumeMounts:
  - { name: cloakroom-config, mountPath: /etc/cloakroom, readOnly: true }
  {{- if include "cloakroom.secretName" .root }}
  - { name: cloakroom-secret, mountPath: /var/run/secrets/cloakroom, readOnly: true }
  {{- end }}
  - { name: cloakroom-data, mountPath: /var/lib/cloakroom }
  - { name: cloakroom-no-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true }
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{- define "cloakroom.volumes" -}}
{{- $values := include "cloakroom.values" . | fromJson -}}
- name: cloakroom-config
  configMap: { name: {{ include "cloakroom.configMapName" . }} }
{{- with include "cloakroom.secretName" . }}
- name: cloakroom-secret
  secret: { secretName: {{ . }} }
{{- end }}
- name: cloakroom-data
  emptyDir: { sizeLimit: {{ $values.dataSize }} }
{{/* Something is there already, so that no service account's token is put there. */}}
- name: cloakroom-no-token
  emptyDir: {}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
