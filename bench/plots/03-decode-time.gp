# Draws 03-decode-time.svg from 03-decode-time.tsv; needs gnuplot 5.4 and nothing else:
#   gnuplot 03-decode-time.gp
#   gnuplot -e "format='png'; theme='dark'" 03-decode-time.gp
if (!exists('format')) format = 'svg' # svg, png, pdf or tex
if (!exists('theme')) theme = 'screen' # screen, print, dark or slides
name = '03-decode-time'
width = 8.5000
height = 6.0200
# theme.gp - the look that all figures have in common.
# Set before these lines: format (svg, png, pdf or tex), theme (screen, print, dark or slides), name
# (of the files, without an ending), width and height in inches.
# Fonts: in all formats a font of 100 is one inch; svg has 100 pixels per inch, png takes 200 pixels
# per inch. The cairo terminals take a point for 4/3 of a pixel or point, which fontscale undoes.
# LaTeX chooses the fonts of tex: the picture is NAME-latex.pdf, its texts are NAME-latex.tex.
# Colours: Okabe and Ito, which readers with any colour vision tell apart. The shapes differ too, and
# in the theme print the dashes, for paper without colours.
set encoding utf8
set micro
set minussign
dark = theme eq 'dark'
thick = theme eq 'slides' ? 1.5 : theme eq 'print' ? 0.8 : 1.0
ground = dark ? '#17181A' : '#FFFFFF'
ink = dark ? '#E8E8EA' : theme eq 'print' ? '#000000' : '#222222'
quiet = dark ? '#A6ABB3' : theme eq 'print' ? '#333333' : '#6B6B6B'
warned = dark ? '#F0B95A' : '#A34A00'
rule = dark ? '#8A8F98' : '#555555' # axes
grid = dark ? '#33363B' : '#E4E4E4'
# On paper without colours the blue would be one of the greys.
accent = dark ? '#5AB4E5' : theme eq 'print' ? '#000000' : '#0072B2'
if (dark) {
  array colour[8] = ['#5AB4E5', '#F08A4B', '#3CC79A', '#E29FC6', '#F2BC3D', '#9AD3F5', '#E8E8EA', '#9A9A9A']
  array grey[4] = ['#5A5E66', '#7C818A', '#9DA2AB', '#45484F']
} else {
  array colour[8] = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000', '#7F7F7F']
  array grey[4] = ['#BDBDBD', '#8C8C8C', '#6B6B6B', '#D9D9D9']
}
# The parts of a stack, which touch: in the theme print no neighbours have nearly one lightness.
array part[8]
do for [i=1:8] { part[i] = colour[i] }
if (theme eq 'print') {
  array part[8] = ['#404040', '#BDBDBD', '#7F7F7F', '#E0E0E0', '#000000', '#A6A6A6', '#595959', '#CFCFCF']
}
array shape[8] = [7, 5, 9, 13, 11, 15, 6, 4]
if (format eq 'svg') {
  set terminal svg size 100*width, 100*height dynamic font 'DejaVu Sans,17' \
    linewidth 1.6*thick noenhanced background ground
}
if (format eq 'png') {
  set terminal pngcairo size 200*width, 200*height font 'DejaVu Sans,17' fontscale 1.5 \
    linewidth 3*thick noenhanced background ground
}
if (format eq 'pdf') {
  set terminal pdfcairo size width in, height in font 'DejaVu Sans,17' fontscale 0.54 \
    linewidth 1.6*thick noenhanced background ground
}
if (format eq 'tex') {
  set terminal cairolatex pdf input color colortext size width in, height in linewidth 1.6*thick
}
set output name.(format eq 'tex' ? '-latex.tex' : '.'.format)
data = name.'.tsv'
do for [i=1:8] {
  set style line i linecolor rgb colour[i] linewidth 1.6 pointtype shape[i] dashtype 1
}
if (theme eq 'print') {
  # gnuplot's own dashes are five. The others are longer, shorter and mixed.
  do for [i=2:5] { set style line i dashtype i }
  set style line 6 dashtype (24,6)
  set style line 7 dashtype (4,4)
  set style line 8 dashtype (16,4,4,4,4,4,4,4)
}
unset key
set border 3 linecolor rgb rule
set tics nomirror out textcolor rgb quiet scale 0.6
set grid linecolor rgb grid linewidth 0.5 linetype 1
set pointintervalbox 0
# The svg and the LaTeX terminal draw points larger.
large = format eq 'svg' || format eq 'tex'
set pointsize (large ? 0.55 : 1.1)
sign = large ? 0.9 : 1.8 # size of the points in legends
set label 1001 'Decoding one token: 32 heads, D 128, f32 cache in memory' at screen 0.0200,0.9502 left font ',17' textcolor rgb ink
set label 1002 'part decode-curve · dtype f32 · isa default · shrink 1' at screen 0.0200,0.9037 left font ',11' textcolor rgb quiet
set label 1003 'Intel(R) Xeon(R) Processor, 2 threads, avx512_vnni · mean of 3 to 9 rounds, 95% intervals' at screen 0.0200,0.8704 left font ',11' textcolor rgb quiet
set logscale x
set logscale y
set xrange [433.53359993:38698.7675297]
set yrange [4.39518558582e-05:0.0618053690477]
set ytics ('' 5e-05 1, '' 6e-05 1, '' 7e-05 1, '' 8e-05 1, '' 9e-05 1, '100 µs' 0.0001 0, '' 0.0002 1, '' 0.0003 1, '' 0.0004 1, '' 0.0005 1, '' 0.0006 1, '' 0.0007 1, '' 0.0008 1, '' 0.0009 1, '1 ms' 0.001 0, '' 0.002 1, '' 0.003 1, '' 0.004 1, '' 0.005 1, '' 0.006 1, '' 0.007 1, '' 0.008 1, '' 0.009 1, '10 ms' 0.01 0, '' 0.02 1, '' 0.03 1, '' 0.04 1, '' 0.05 1, '' 0.06 1) font ',15'
set xtics ('512' 512 0, '1024' 1024 0, '2048' 2048 0, '4096' 4096 0, '8192' 8192 0, '16384' 16384 0, '32768' 32768 0) font ',15'
set lmargin at screen 0.1020
set rmargin at screen 0.8619
set bmargin at screen 0.1312
set tmargin at screen 0.7791
set label 152 'seconds' at screen 0.1020,0.8056 left font ',14' textcolor rgb quiet
set label 151 'tokens' at screen 0.4819,0.0515 center font ',14' textcolor rgb quiet
set label 201 '1 kv head' at graph 1.02,0.5499 left font ',14' textcolor rgb colour[3]
set label 202 '8 kv heads' at graph 1.02,0.7291 left font ',14' textcolor rgb colour[2]
set label 203 '32 kv heads' at graph 1.02,0.9260 left font ',14' textcolor rgb colour[1]
plot data index 0 using 1:2 with lines linestyle 1 notitle, \
     data index 0 using 1:($4>$3 ? $2 : NaN):3:4 with yerrorbars linestyle 1 linewidth 1.1 notitle, \
     data index 1 using 1:2 with lines linestyle 2 notitle, \
     data index 1 using 1:($4>$3 ? $2 : NaN):3:4 with yerrorbars linestyle 2 linewidth 1.1 notitle, \
     data index 2 using 1:2 with lines linestyle 3 notitle, \
     data index 2 using 1:($4>$3 ? $2 : NaN):3:4 with yerrorbars linestyle 3 linewidth 1.1 notitle
unset output
