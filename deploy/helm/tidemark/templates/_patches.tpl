{{- /*
Patches, as Kustomize applies them. Templates return texts only: a value goes out as JSON, in an object with the key `value`.
*/ -}}

{{- /* The patched value. Given: a list of the value and its patch. */ -}}
{{- define "tidemark.patched" -}}
{{- $value := index . 0 -}}
{{- $patch := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" $patch) -}}
  {{- range $name, $part := $patch -}}
    {{- if kindIs "invalid" $part -}}
      {{- $_ := unset $value $name -}}
    {{- else -}}
      {{- $_ := set $value $name (include "tidemark.patched" (list (get $value $name) $part) | fromJson).value -}}
    {{- end -}}
  {{- end -}}
{{- else if and (kindIs "slice" $value) (kindIs "slice" $patch) (include "tidemark.key" $patch) -}}
  {{- $value = (include "tidemark.merged" (list $value $patch (include "tidemark.key" $patch)) | fromJson).value -}}
{{- else -}}
  {{- $value = $patch -}}
{{- end -}}
{{- dict "value" $value | toJson -}}
{{- end -}}

{{- /* By which key the items of a list are found again; empty for a list that is replaced. */ -}}
{{- define "tidemark.key" -}}
{{- $first := first . -}}
{{- if kindIs "map" $first -}}
  {{- if hasKey $first "mountPath" -}}mountPath{{- else if hasKey $first "name" -}}name{{- end -}}
{{- end -}}
{{- end -}}

{{- /* A list, with the items of another one merged into it. Given: a list of both and of their key. */ -}}
{{- define "tidemark.merged" -}}
{{- $items := index . 0 -}}
{{- $key := index . 2 -}}
{{- range $patch := index . 1 -}}
  {{- $result := list -}}
  {{- $found := false -}}
  {{- range $item := $items -}}
    {{- if eq (get $item $key) (get $patch $key) -}}
      {{- $found = true -}}
      {{- $item = (include "tidemark.patched" (list $item $patch) | fromJson).value -}}
    {{- end -}}
    {{- $result = append $result $item -}}
  {{- end -}}
  {{- $items = $found | ternary $result (append $result $patch) -}}
{{- end -}}
{{- dict "value" $items | toJson -}}
{{- end -}}
