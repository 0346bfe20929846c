{{- /* The documents of a file of `objects`, as JSON with the key `value`. Given: a list of the chart and the path. */ -}}
{{- define "tidemark.documents" -}}
{{- $root := index . 0 -}}
{{- $path := index . 1 -}}
{{- $documents := list -}}
{{- $content := required (printf "the chart has no %s" $path) ($root.Files.Get $path) -}}
{{- range regexSplit "(?m)^---$" $content -1 -}}
  {{- with fromYaml . -}}
    {{- $documents = append $documents . -}}
  {{- end -}}
{{- end -}}
{{- dict "value" $documents | toJson -}}
{{- end -}}

{{- /*
What a folder with a kustomization.yaml lists under `resources` or `patches`: objects, as JSON with the key `value`.
Given: a list of the chart, the folder, and that word.
*/ -}}
{{- define "tidemark.folder" -}}
{{- $root := index . 0 -}}
{{- $folder := printf "objects/%s" (index . 1) -}}
{{- $documents := list -}}
{{- $kustomization := index (include "tidemark.documents" (list $root (printf "%s/kustomization.yaml" $folder)) | fromJson).value 0 -}}
{{- range index $kustomization (index . 2) -}}
  {{- $path := . -}}
  {{- if kindIs "map" . -}}{{- $path = .path -}}{{- end -}}
  {{- $documents = concat $documents (include "tidemark.documents" (list $root (printf "%s/%s" $folder $path)) | fromJson).value -}}
{{- end -}}
{{- dict "value" $documents | toJson -}}
{{- end -}}

{{- define "tidemark.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
  {{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
  {{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* What all pods have. Given: a list of the chart and an object, which is changed. */ -}}
{{- define "tidemark.shared" -}}
{{- $root := index . 0 -}}
{{- $object := index . 1 -}}
{{- $_ := set $object.metadata "labels" (merge (dict "app.kubernetes.io/part-of" "tidemark") ($object.metadata.labels | default dict)) -}}
{{- with dig "spec" "template" dict $object -}}
  {{- $_ := set .metadata.labels "app.kubernetes.io/part-of" "tidemark" -}}
  {{- $_ := set (index .spec.containers 0) "image" (include "tidemark.image" $root) -}}
  {{- with $root.Values.image.pullSecrets -}}
    {{- $secrets := list -}}
    {{- range . -}}{{- $secrets = append $secrets (dict "name" .) -}}{{- end -}}
    {{- $_ := set $object.spec.template.spec "imagePullSecrets" $secrets -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- /* Patches of components and of values that name an object. Given: a list of the chart, the object and the patches. */ -}}
{{- define "tidemark.printed" -}}
{{- $root := index . 0 -}}
{{- $object := index . 1 -}}
{{- range $patch := index . 2 -}}
  {{- if and (eq $patch.kind $object.kind) (eq $patch.metadata.name $object.metadata.name) -}}
    {{- $object = (include "tidemark.patched" (list $object $patch) | fromJson).value -}}
  {{- end -}}
{{- end -}}
---
{{ toYaml $object }}
{{ end -}}
