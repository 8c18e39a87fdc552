/* Runs a JSFX file in EEL2, the language of REAPER as Cockos publishes it (github.com/justinfrankel/WDL, WDL/eel2), so
   that tests can null exported effects against dasp.

   jsfx_host FILE SAMPLE_RATE SLIDER_1 SLIDER_2 ...   stereo float64 in, stereo float64 out

   In a clone of WDL:
   gcc -O1 -w -DEEL_TARGET_PORTABLE -I WDL/eel2 jsfx_host.c WDL/eel2/nseel-*.c -lm -o jsfx_host

   Then DASP_JSFX_HOST=./jsfx_host python -m pytest tests/interchange/test_reaper.py */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ns-eel.h"

void NSEEL_HOSTSTUB_EnterMutex(void) {}
void NSEEL_HOSTSTUB_LeaveMutex(void) {}

static char *section(char *text, const char *name) {
    char *begin = strstr(text, name);
    if (!begin) return NULL;
    begin += strlen(name);
    char *end = strstr(begin, "\n@");
    size_t length = end ? (size_t)(end - begin) : strlen(begin);
    char *copy = calloc(length + 1, 1);
    memcpy(copy, begin, length);
    return copy;
}

static NSEEL_CODEHANDLE compiled(NSEEL_VMCTX vm, char *text, const char *name) {
    char *code = section(text, name);
    if (!code) return NULL;
    /* As JSFX does it: functions of @init are seen by the other sections. */
    NSEEL_CODEHANDLE handle = NSEEL_code_compile_ex(vm, code, 0, NSEEL_CODE_COMPILE_FLAG_COMMONFUNCS);
    if (!handle) {
        fprintf(stderr, "%s: %s\n", name, NSEEL_code_getcodeerror(vm));
        exit(1);
    }
    return handle;
}

int main(int count, char **arguments) {
    static char text[1 << 16];
    FILE *file = count > 2 ? fopen(arguments[1], "rb") : NULL;
    if (!file) return 2;
    text[fread(text, 1, sizeof(text) - 1, file)] = 0;
    fclose(file);
    NSEEL_init();
    NSEEL_VMCTX vm = NSEEL_VM_alloc();
    double *left = NSEEL_VM_regvar(vm, "spl0"), *right = NSEEL_VM_regvar(vm, "spl1");
    *NSEEL_VM_regvar(vm, "srate") = atof(arguments[2]);
    for (int number = 1; number <= 64; number++) {
        char name[16];
        snprintf(name, sizeof(name), "slider%d", number);
        double *slider = NSEEL_VM_regvar(vm, name);
        if (number + 2 < count) *slider = atof(arguments[number + 2]);
    }
    NSEEL_CODEHANDLE init = compiled(vm, text, "\n@init"), slider = compiled(vm, text, "\n@slider");
    NSEEL_CODEHANDLE sample = compiled(vm, text, "\n@sample");
    if (init) NSEEL_code_execute(init);
    if (slider) NSEEL_code_execute(slider);
    double frame[2];
    while (fread(frame, sizeof(double), 2, stdin) == 2) {
        *left = frame[0];
        *right = frame[1];
        if (sample) NSEEL_code_execute(sample);
        frame[0] = *left;
        frame[1] = *right;
        fwrite(frame, sizeof(double), 2, stdout);
    }
    return 0;
}
