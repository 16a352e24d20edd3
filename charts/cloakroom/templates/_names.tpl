{{/* The values of this chart, of whatever chart includes a template of it. */}}
{{- define "cloakroom.values" -}}
{{- if eq .Chart.Name "cloakroom" }}{{ toJson .Values }}{{ else }}{{ required "the chart cloakroom is not among the dependencies" .Values.cloakroom | toJson }}{{ end }}
{{- end }}

{{- define "cloakroom.name" -}}
{{- $values := include "cloakroom.values" . | fromJson -}}
{{- default "cloakroom" $values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "cloakroom.fullname" -}}
{{- $values := include "cloakroom.values" . | fromJson -}}
{{- $name := include "cloakroom.name" . -}}
{{- if $values.fullnameOverride }}{{ $values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "cloakroom.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cloakroom.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "cloakroom.labels" -}}
{{ include "cloakroom.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What a pod with a sidecar is found by. */}}
{{- define "cloakroom.podLabels" -}}
cloakroom.dev/sidecar: "true"
{{- end }}

{{- define "cloakroom.kubeVersion" -}}
{{- $values := include "cloakroom.values" . | fromJson -}}
{{- default .Capabilities.KubeVersion.Version $values.kubeVersion | trimPrefix "v" | printf "v%s" }}
{{- end }}

{{- define "cloakroom.image" -}}
{{- $values := include "cloakroom.values" . | fromJson -}}
{{- $version := "" -}}
{{- if eq .Chart.Name "cloakroom" }}{{ $version = .Chart.AppVersion }}{{ else }}{{ $version = (index .Subcharts "cloakroom").Chart.AppVersion }}{{ end -}}
{{- $image := $values.image -}}
{{- if $image.digest }}{{ printf "%s@%s" $image.repository $image.digest }}{{ else }}{{ printf "%s:%s" $image.repository (default $version $image.tag) }}{{ end }}
{{- end }}

{{/* Where sidecars and gateway find configuration and secrets: the names of the objects. */}}
{{- define "cloakroom.configMapName" -}}
{{- $values := include "cloakroom.values" . | fromJson -}}
{{- default (include "cloakroom.fullname" .) $values.existingConfigMap }}
{{- end }}

{{- define "cloakroom.secretName" -}}
{{- $values := include "cloakroom.values" . | fromJson -}}
{{- if $values.secret.existing }}{{ $values.secret.existing }}{{ else if $values.secret.entries }}{{ include "cloakroom.fullname" . }}{{ end }}
{{- end }}

{{/* The configuration as text. */}}
{{- define "cloakroom.config" -}}
{{- if kindIs "string" .Values.config }}{{ .Values.config }}{{ else }}{{ toYaml .Values.config }}{{ end }}
{{- end }}

{{/* The restricted Pod Security Standard, and a root file system that cannot be written. */}}
{{- define "cloakroom.securityContext" -}}
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- if not (kindIs "invalid" .) }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
{{- end }}
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "cloakroom.pullSecrets" -}}
{{- with . }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where a Deployment's pods may run; .settings are the component's. */}}
{{- define "cloakroom.placement" -}}
{{- $selector := dict "matchLabels" (include "cloakroom.selectorLabels" . | fromYaml) -}}
{{- $soft := dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway" "labelSelector" $selector -}}
topologySpreadConstraints:
{{- toYaml (default (list $soft) .settings.topologySpreadConstraints) | nindent 2 }}
{{- with .settings.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
