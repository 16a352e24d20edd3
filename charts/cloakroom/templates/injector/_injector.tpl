{{- define "cloakroom.certificateSecret" -}}
{{- default (printf "%s-injector-tls" (include "cloakroom.fullname" .)) .Values.injector.certificate.secretName }}
{{- end }}

{{/* The injector's own configuration. */}}
{{- define "cloakroom.injectorConfig" -}}
{{- $injector := .Values.injector -}}
{{- $requests := default dict .Values.resources.requests -}}
{{- $limits := default dict .Values.resources.limits -}}
version: 1
address: "0.0.0.0:{{ int64 $injector.port }}"
status: { address: "0.0.0.0:{{ int64 .Values.ports.status }}" }
tls: { certificate: /tls/tls.crt, key: /tls/tls.key }
kubernetes: {{ include "cloakroom.kubeVersion" . | quote }}
on_refusal: {{ $injector.onRefusal }}
sidecar:
  image: {{ include "cloakroom.image" . | quote }}
  pull_policy: {{ .Values.image.pullPolicy }}
  mode: {{ $injector.sidecar.mode }}
  app_port: {{ $injector.sidecar.appPort | quote }}
  address: {{ $injector.sidecar.address | quote }}
  port: {{ int64 .Values.ports.proxy }}
  status_port: {{ int64 .Values.ports.status }}
  admin_port: {{ int64 .Values.ports.admin }}
  config_map: {{ $injector.sidecar.configMap | quote }}
  secret: {{ $injector.sidecar.secret | toJson }}
  log_level: {{ .Values.logLevel | quote }}
  resources:
    cpu_request: {{ $requests.cpu | toJson }}
    cpu_limit: {{ $limits.cpu | toJson }}
    memory_request: {{ $requests.memory | toJson }}
    memory_limit: {{ $limits.memory | toJson }}
  user: {{ if kindIs "invalid" .Values.user }}null{{ else }}{{ int64 .Values.user }}{{ end }}
  check: {{ .Values.check }}
  pre_stop: {{ $injector.sidecar.preStop }}
  data: {{ .Values.dataSize | quote }}
bounds:
  images: {{ toJson $injector.bounds.images }}
  cpu: {{ $injector.bounds.cpu | toString | quote }}
  memory: {{ $injector.bounds.memory | toString | quote }}
log: { level: {{ $injector.logLevel | quote }} }
{{- end }}
